"""Drug names of any source -> one normalised generic name.

In:  a name as the source wrote it, and `data/drugs.yaml`.   Out: a lower-case name, or "" when nothing is left.
Never: patients; doses. Two products of one substance become one name: strengths, salts, forms and routes are dropped,
brand names and other spellings are replaced, and the parts of a combination are joined by hyphens.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from typing import Literal

from pydantic import Field

from fairsynth.config import Strict, read_yaml
from fairsynth.visits.phenotypes import DATA

_BRACKETS = re.compile(r"[(\[（【].*?(?:[)\]）】]|$)")
_STRENGTH = re.compile(
    r"(?<![a-z])\d[\d.,]*\s*(?:mg|mcg|ug|gm|g|kg|ml|l|meq|mmol|units?|unt|iu|u|%|million|mm|hr|h|actuat)?"
    r"(?:\s*/\s*\d*[\d.,]*\s*(?:mg|ml|l|hr|h|g|kg|actuat))?(?![a-z\d])"
)
_AND = re.compile(r"\s*[/+&]\s*|\s+(?:and|with)\s+")
_SEPARATORS = re.compile(r"[^a-z0-9'-]+")


class DrugWords(Strict):
    """`data/drugs.yaml`."""

    schema_: Literal["fairsynth.drugs/1"] = Field(alias="schema")
    electrolytes: frozenset[str]
    salts: frozenset[str]
    words: frozenset[str]
    spellings: dict[str, str]
    synonyms: dict[str, str]

    @cached_property
    def names(self) -> frozenset[str]:
        """Names that are normalised already."""
        return frozenset(self.synonyms.values())


@cache
def drug_words() -> DrugWords:
    """The words that are dropped and the synonyms."""
    return read_yaml(DATA / "drugs.yaml", DrugWords)


def normalise(name: str) -> str:
    """The generic name: `normalise("Metoprolol Tartrate 25 mg Tab") == "metoprolol"`."""
    table = drug_words()
    text = " ".join(_BRACKETS.sub(" ", name.lower()).split())
    for spelling, other in table.spellings.items():
        text = text.replace(spelling, other)
    if text in table.names or text in table.synonyms:
        return table.synonyms.get(text, text)
    parts = [_substance(part, table) for part in _AND.split(_STRENGTH.sub(" ", text))]
    plain = "-".join(dict.fromkeys(part for part in parts if part))
    return table.synonyms.get(plain, plain)


def _substance(text: str, table: DrugWords) -> str:
    """One part of a combination, without the words that name no substance."""
    text = " ".join(text.split())
    if text in table.names or text in table.synonyms:
        return table.synonyms.get(text, text)
    parts = [part.strip("-'") for part in _SEPARATORS.split(text)]
    words = [word for word in parts if word and word not in table.words]
    if words and words[0] not in table.electrolytes:
        words = [words[0], *(word for word in words[1:] if word not in table.salts)]
    plain = " ".join(words)
    return table.synonyms.get(plain, plain)
