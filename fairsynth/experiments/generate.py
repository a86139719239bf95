"""Synthetic patients at one site of a finished run, outside a study's own augmentation.

In:  a run, a site, a condition.   Out: `out/events` (MEDS) and `out/tables` (the source's own format).
Never: a folder that holds only half of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fairsynth import seeds
from fairsynth.errors import ConfigError
from fairsynth.experiments.study import Run
from fairsynth.generator import checkpoint
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.sample import Conditions, sample
from fairsynth.synthesis.decode import write_events, write_tables
from fairsynth.visits.cohort import load_cohort


def generate(
    run: Run, *, site: str, arm: str, number: int, condition: tuple[str | None, int | None], out: Path, seed: int
) -> int:
    """Write `number` synthetic patients of `site` under `out`; `condition` is (group, label), None where free.

    Raises ConfigError on an unknown site or group, or when `out` is not empty.
    """
    folder = run.site(site)
    plan = run.plan
    group, label = condition
    if group is not None and group not in plan.groups.names:
        known = ", ".join(plan.groups.names)
        raise ConfigError.of("unknown group", where=f"--group {group}", expected=f"one of: {known}")
    if out.exists() and any(out.iterdir()):
        raise ConfigError.of("folder not empty", where=str(out), do="another --out")
    generator = checkpoint.load(run.server / f"generator-{arm}", kind=f"generator-{arm}")
    cohort = load_cohort(folder)
    index = -1 if group is None else [str(name) for name in plan.groups.names].index(group)
    conditions = Conditions(
        group=np.full(number, index, dtype=np.int64),
        label=np.full(number, -1 if label is None else label, dtype=np.int64),
    )
    records = sample(
        at_home(generator.weights, base_rates(cohort.train, vocabulary=cohort.vocabulary)),
        vocabulary=cohort.vocabulary,
        config=generator.config,
        conditions=conditions,
        seed=seeds.stream(plan.seed, "generate", site, arm, seed),
    )
    events = write_events(records, root=folder, out=out, seed=seeds.stream(plan.seed, "decode", site, arm, seed))
    entry = json.loads((folder / "site.json").read_text(encoding="utf-8"))
    write_tables(events, config=Path(entry["config"]), out=out)
    return len(records)
