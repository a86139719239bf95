"""Synthetic patients at one site: of a finished run, or of a model that the site trained alone.

In:  a run and a site, or a model; a condition.   Out: `out/events` (MEDS) and `out/tables` (the source's own format).
Never: a folder that holds only half of them; all patients in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairsynth import seeds
from fairsynth.config import StudyPlan
from fairsynth.errors import ConfigError
from fairsynth.experiments.study import Run
from fairsynth.experiments.train import Model
from fairsynth.generator import checkpoint
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import Halo, build
from fairsynth.generator.sample import FREE, Conditions, stream_patients
from fairsynth.halo import HALO
from fairsynth.synthesis.decode import write_events, write_tables
from fairsynth.visits.cohort import load_cohort
from fairsynth.visits.records import Records

Condition = tuple[str | None, int | None]  # group and label, None where free


@dataclass(frozen=True, kw_only=True)
class Source:
    """A generator, the folder of the site whose words it speaks, and what names its randomness."""

    model: Halo
    folder: Path
    plan: StudyPlan
    name: tuple[str, ...]

    def seed(self, purpose: str, seed: int) -> int:
        """The seed for one purpose."""
        return seeds.stream(self.plan.seed, purpose, *self.name, seed)


def source_of_run(run: Run, *, site: str, arm: str) -> Source:
    """One of a run's two generators at one of its sites. Raises ConfigError on an unknown site."""
    folder, plan = run.site(site), run.plan
    generator = checkpoint.load(run.server / f"generator-{arm}", kind=f"generator-{arm}")
    cohort = load_cohort(folder)
    weights = at_home(generator.weights, base_rates(cohort.train, vocabulary=cohort.vocabulary))
    model = build(weights, vocabulary=cohort.vocabulary, config=generator.config)
    return Source(model=model, folder=folder, plan=plan, name=(site, arm))


def source_of_model(model: Model) -> Source:
    """What `fairsynth train` left."""
    return Source(model=HALO.load(model.root).model, folder=model.root, plan=model.plan, name=("alone",))


def generate(source: Source, *, number: int, condition: Condition, out: Path, seed: int) -> int:
    """Write `number` synthetic patients of `source` under `out`.

    Raises ConfigError on an unknown group, or when `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError.of("folder not empty", where=str(out), do="another --out")
    patients = _patients(source, conditions=_conditions(source.plan, number, condition), seed=seed)
    entry = json.loads((source.folder / "site.json").read_text(encoding="utf-8"))
    events = write_events(patients, root=source.folder, out=out, seed=source.seed("decode", seed))
    try:
        write_tables(events, config=Path(entry["config"]), out=out)
    except BaseException:
        shutil.rmtree(events)
        raise
    return number


def _conditions(plan: StudyPlan, number: int, condition: Condition) -> Conditions:
    names = [str(name) for name in plan.groups.names]
    group, label = condition
    if group is not None and group not in names:
        raise ConfigError.of("unknown group", where=f"--group {group}", expected=f"one of: {', '.join(names)}")
    return Conditions(
        group=np.full(number, FREE if group is None else names.index(group), dtype=np.int64),
        label=np.full(number, FREE if label is None else label, dtype=np.int64),
    )


def _patients(source: Source, *, conditions: Conditions, seed: int) -> Iterator[Records]:
    """The patients, some at a time."""
    for part in stream_patients(source.model, conditions=conditions, seed=source.seed("generate", seed)):
        yield part.records
