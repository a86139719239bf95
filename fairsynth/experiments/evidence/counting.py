"""Patients that an approach adds -> every site's predictor trained on them, counted on real patients -> a `Cell`.

In:  a `Bench`, what is added at each site.   Out: models, counts, the cell of a finished trial.
Never: a score of one patient; an approach's idea of whom to add.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fairsynth.audit.fitting import Fitted
from fairsynth.audit.predictors import load_predictor
from fairsynth.augmentation.plan import members_of
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.cells import Axes, Cell
from fairsynth.experiments.evidence.chosen import plan_quotas
from fairsynth.schemas import FloatArray, IntArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.records import Records

Progress = Callable[[str], None]
Models = Mapping[SiteId, Fitted]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one row of a table."""

    real: int
    synthetic: int


def fit(
    bench: Bench,
    *,
    predictor: str,
    added: Mapping[SiteId, Records],
    weights: Mapping[SiteId, FloatArray] | None = None,
    train: Mapping[SiteId, Records] | None = None,
) -> Models:
    """Each site's own model on `train` (its real training patients) and `added`; all approaches share a site's seed."""
    real = train or {site: one.train for site, one in bench.draw.cohorts.items()}
    return {
        site: load_predictor(predictor).fit(
            Records.concatenate([real[site], added[site]]),
            vocabulary=bench.draw.vocabulary,
            settings=bench.settings,
            seed=stream(bench.seed, "predictor", predictor, site),
            weights=None if weights is None else weights[site],
        )
        for site in bench.draw.sites
    }


@dataclass(eq=False, kw_only=True)
class Counts:
    """What was counted so far, by approach and predictor."""

    bench: Bench
    held_out: dict[tuple[str, str], IntArray] = field(default_factory=dict)  # (S, G, 2, 200)
    validation: dict[tuple[str, str], IntArray] = field(default_factory=dict)
    added: dict[tuple[str, str], IntArray] = field(default_factory=dict)  # (S, G, 2)
    facts: dict[str, Any] = field(default_factory=dict)

    def count(self, approach: str, predictor: str, *, models: Models, added: Mapping[SiteId, Records]) -> None:
        """Count what `models` do to real patients, and whom they were given."""
        bench, key = self.bench, (approach, predictor)
        cohorts = bench.draw.cohorts
        self.held_out[key] = np.stack([bench.count(models[site], one.held_out) for site, one in cohorts.items()])
        self.validation[key] = np.stack([bench.count(models[site], one.validation) for site, one in cohorts.items()])
        self.added[key] = np.stack(
            [members_of(added[site].group, added[site].label, groups=bench.groups) for site in cohorts]
        )

    def cell(self, *, setting: str, sizes: Sizes, number: int) -> Cell:
        """The finished trial; a pair of approach and predictor that was not counted holds zeros."""
        bench, plan = self.bench, self.bench.plan
        approaches = tuple(dict.fromkeys(approach for approach, _ in self.held_out))
        predictors = plan.audit.predictors

        def stacked(found: Mapping[tuple[str, str], IntArray]) -> IntArray:
            nothing = np.zeros_like(next(iter(found.values())))
            return np.stack([[found.get((each, name), nothing) for name in predictors] for each in approaches])

        return Cell(
            axes=Axes(
                setting=setting,
                real=sizes.real,
                synthetic=sizes.synthetic,
                seed=number,
                approaches=approaches,
                predictors=predictors,
                sites=bench.draw.sites,
                groups=bench.draw.vocabulary.groups,
                reference=plan.groups.reference,
                favourable=plan.objective.favourable,
            ),
            held_out=stacked(self.held_out),
            validation=stacked(self.validation),
            added=stacked(self.added),
            train=np.stack([bench.members(site) for site in bench.draw.sites]),
            facts=self.facts,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Variants(ABC):
    """What a table tries that is of one kind: each variant says whom it adds, and all are counted alike."""

    bench: Bench
    setting: str
    sizes: Sizes
    number: int  # the seed's, from 1
    progress: Progress = lambda _: None
    facts: dict[str, Any] = field(default_factory=dict)  # seconds, and what the variants chose

    @abstractmethod
    def approaches(self, predictor: str) -> Mapping[str, Callable[[], Mapping[SiteId, Records]]]:
        """Whom each variant adds for `predictor`, by the variant's name."""

    @cached_property
    def quotas(self) -> dict[SiteId, IntArray]:
        """FairSynth's own."""
        return plan_quotas(self.bench, synthetic=self.sizes.synthetic)

    def run(self) -> Cell:
        """Every variant to all predictors of the plan, counted.

        The seconds of a variant include those of whatever it is the first to ask for.
        """
        counts = Counts(bench=self.bench, facts=self.facts)
        for predictor in self.bench.plan.audit.predictors:
            for name, add in self.approaches(predictor).items():
                self.progress(f"{name}, {predictor}")
                began = time.monotonic()
                added = add()
                counts.count(name, predictor, models=fit(self.bench, predictor=predictor, added=added), added=added)
                self.facts[f"seconds/{name}/{predictor}"] = round(time.monotonic() - began, 1)
        return counts.cell(setting=self.setting, sizes=self.sizes, number=self.number)
