"""A data folder -> a folder with site.yaml, rules.yaml, groups.yaml and policy.yaml to start from.

In:  raw tables.   Out: four commented files, and `Outcome` for the terminal.
Never: a file that is already there is changed; a patient's identifier, date or text in a file or in the outcome.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fairsynth import artefacts
from fairsynth.config import Strict
from fairsynth.errors import ConfigError
from fairsynth.governance.policy import write_policy
from fairsynth.onboarding.drafts import SiteDraft
from fairsynth.onboarding.guess import guess_site
from fairsynth.onboarding.known import known_configurations
from fairsynth.onboarding.samples import Sample, take_samples
from fairsynth.onboarding.write import groups_yaml, rules_yaml, site_yaml
from fairsynth.quality.todos import open_todos


class TableFound(Strict):
    """One file: what it was taken for, and the events that its rows would give."""

    file: str
    what: str
    codes: tuple[str, ...]


class Outcome(Strict):
    """What was written, and what a person has to decide."""

    folder: str
    looks_like: tuple[str, ...]  # configurations that exist already for these tables
    tables: tuple[TableFound, ...]
    groups: int  # strings of the sensitive attribute that are written out
    todos: tuple[str, ...]  # `file:line  text`


def init_site(data: Path, *, out: Path, name: str | None = None, shipped: Path | None = None) -> Outcome:
    """Write a first configuration for the tables in `data` into the folder `out`, which must be absent or empty.

    `shipped` is a folder of configurations that the tables are compared with. Raises ConfigError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError.of("something is there already", where=str(out), do="another --out, or remove it")
    samples, unused = take_samples(data)
    draft = guess_site(samples, unused, name=_name(name or out.name))
    texts = {"site.yaml": site_yaml(draft), "rules.yaml": rules_yaml(draft), "groups.yaml": groups_yaml(draft)}
    for file, text in texts.items():
        artefacts.write_text(out / file, text)
    write_policy(out / "policy.yaml")
    return Outcome(
        folder=str(out),
        looks_like=tuple(str(path) for path in known_configurations(samples, folder=shipped)),
        tables=_found(draft, samples),
        groups=len(draft.strings),
        todos=tuple(f"{todo.file}:{todo.line}  {todo.text}" for todo in open_todos(out)),
    )


def _name(text: str) -> str:
    """A name that site.yaml can hold."""
    plain = re.sub(r"[^0-9a-z_-]+", "-", text.lower()).strip("-")[:48]
    if not re.match(r"[a-z]", plain):
        raise ConfigError.of("bad name", where=text, expected="a name that begins with a letter", do="--name NAME")
    return plain


def _found(draft: SiteDraft, samples: Sequence[Sample]) -> tuple[TableFound, ...]:
    tables = {
        table.sample.name: (table.what, tuple(str(event.rule["code"]) for event in table.events if not event.open))
        for table in draft.tables
    }
    dictionaries = {one.sample.name: (f"dictionary of {one.keys['code']}", ()) for one in draft.dictionaries}
    nothing: tuple[str, tuple[str, ...]] = ("not read", ())
    found = [(sample.path.name, (tables | dictionaries).get(sample.name, nothing)) for sample in samples]
    return tuple(TableFound(file=file, what=what, codes=codes) for file, (what, codes) in found)
