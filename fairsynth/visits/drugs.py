"""Drug names of any source -> one normalised generic name.

In:  a name as the source wrote it, and `data/drugs.yaml`.   Out: a lower-case name, or "" when nothing is left.
Never: patients; doses. Two products of one substance become one name: strengths, salts, forms and routes are dropped.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from pydantic import Field

from fairsynth.config import Strict, read_yaml
from fairsynth.visits.phenotypes import DATA

_BRACKETS = re.compile(r"[(\[（【].*?(?:[)\]）】]|$)")
_STRENGTH = re.compile(
    r"(?<![a-z])\d[\d.,]*\s*(?:mg|mcg|ug|g|kg|ml|l|meq|mmol|units?|iu|u|%|million|mm|hr|h)?(?:\s*/\s*\d*[\d.,]*\s*(?:mg|ml|l|hr|h|g|kg))?(?![a-z\d])"
)
_SEPARATORS = re.compile(r"[^a-z0-9/'-]+")


class DrugWords(Strict):
    """`data/drugs.yaml`."""

    schema_: Literal["fairsynth.drugs/1"] = Field(alias="schema")
    electrolytes: frozenset[str]
    salts: frozenset[str]
    words: frozenset[str]
    synonyms: dict[str, str]


@cache
def drug_words() -> DrugWords:
    """The words that are dropped and the synonyms."""
    return read_yaml(DATA / "drugs.yaml", DrugWords)


def normalise(name: str) -> str:
    """The generic name: `normalise("Metoprolol Tartrate 25 mg Tab") == "metoprolol"`."""
    table = drug_words()
    text = _BRACKETS.sub(" ", name.lower()).strip()
    if text in table.synonyms:
        return table.synonyms[text]
    parts = [part.strip("-/'") for part in _SEPARATORS.split(_STRENGTH.sub(" ", text))]
    words = [word for word in parts if word and word not in table.words]
    if words and words[0] not in table.electrolytes:
        words = [words[0], *(word for word in words[1:] if word not in table.salts)]
    plain = " ".join(words)
    return table.synonyms.get(plain, plain)
