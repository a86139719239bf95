"""Whether a data folder has the tables of a configuration that exists already.

In:  samples, the folder with the shipped configurations.   Out: the names of those that fit.
Never: a cell; a configuration that does not load is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from fairsynth.errors import FairSynthError
from fairsynth.extraction.meds_rules import MedsRules
from fairsynth.extraction.rules import FileRule, Rules, read_source
from fairsynth.onboarding.samples import Sample

MEDS = {"SUBJECT_ID", "TIME", "CODE", "NUMERIC_VALUE"}  # columns of a MEDS data set


def known_configurations(samples: Iterable[Sample], *, folder: Path | None) -> tuple[Path, ...]:
    """The configurations in `folder` of which every table, with the columns that are read, is among the samples."""
    headers = {sample.name: set(sample.columns) for sample in samples}
    configs = [path.parent for path in sorted(folder.rglob("site.yaml"))] if folder is not None else []
    return tuple(config for config in configs if _is_known(config, headers))


def _is_known(config: Path, headers: Mapping[str, set[str]]) -> bool:
    try:
        rules = read_source(config)[1]
    except FairSynthError:
        return False
    if isinstance(rules, MedsRules):
        return any(header >= MEDS for header in headers.values())
    return all(_fits(rule, rules, headers) for rule in rules.files)


def _fits(rule: FileRule, rules: Rules, headers: Mapping[str, set[str]]) -> bool:
    header = headers.get(rule.file)
    if header is None:
        return False
    return all(header & set(rule.names(column)) for column in rules.reads(rule))
