"""Whether a data folder has the tables of a configuration that exists already.

In:  samples, the folder with the shipped configurations.   Out: the names of those that fit.
Never: a cell; a configuration that does not load is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fairsynth.errors import FairSynthError
from fairsynth.extraction.rules import FileRule, Rules, read_rules
from fairsynth.onboarding.samples import Sample


def known_configurations(samples: Iterable[Sample], *, folder: Path | None) -> tuple[Path, ...]:
    """The configurations in `folder` of which every table, with the columns that are read, is among the samples."""
    headers = {sample.name: set(sample.columns) for sample in samples}
    found = []
    for config in sorted(path.parent for path in folder.glob("*/site.yaml")) if folder is not None else ():
        try:
            rules = read_rules(config)
        except FairSynthError:
            continue
        if all(_fits(rule, rules, headers) for rule in rules.files):
            found.append(config)
    return tuple(found)


def _fits(rule: FileRule, rules: Rules, headers: dict[str, set[str]]) -> bool:
    header = headers.get(rule.file)
    if header is None:
        return False
    return all(header & set(rule.names(column)) for column in rules.reads(rule))
