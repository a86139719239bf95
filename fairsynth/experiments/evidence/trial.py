"""One trial: every approach and predictor on one seed's patients, counted on real held-out patients.

In:  a pool, a setting's plan, sizes and a seed.   Out: a `Cell` for each number of synthetic patients.
Never: an approach that sees other real patients than the others (but for the oracle and `fresh_same_size`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fairsynth.audit.federated_predictor import BySize, FairFed, federated
from fairsynth.audit.fitting import Fitted
from fairsynth.audit.mitigation import ExponentiatedGradient
from fairsynth.audit.predictors import load_predictor
from fairsynth.audit.thresholds import equal_rates, optimised
from fairsynth.augmentation.plan import members_of
from fairsynth.augmentation.reweighing import reweigh
from fairsynth.experiments.evidence import additions
from fairsynth.experiments.evidence.bench import Bench, Scope, with_permuted_groups
from fairsynth.experiments.evidence.cells import Axes, Cell
from fairsynth.experiments.evidence.chosen import Chooser, Chosen, candidates_for, plan_quotas
from fairsynth.federation.plans import reference_mask
from fairsynth.schemas import FloatArray, IntArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.records import Records

Progress = Callable[[str], None]
Models = Mapping[SiteId, Fitted]
FEDERATED_ROUNDS = 4  # of a federated predictor; a round is one pass over each site's patients
FAIRFED_BETA = 10.0  # soft gaps are some hundredths: with 1, the weights are FedAvg's


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one row of a table."""

    real: int
    synthetic: int


@dataclass(eq=False, kw_only=True)
class _Counts:
    """What was counted so far, by approach and predictor."""

    held_out: dict[tuple[str, str], IntArray] = field(default_factory=dict)  # (S, G, 2, 200)
    validation: dict[tuple[str, str], IntArray] = field(default_factory=dict)
    added: dict[tuple[str, str], IntArray] = field(default_factory=dict)  # (S, G, 2)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One row and seed, with the bench that rows of the same real patients share."""

    bench: Bench
    setting: str
    sizes: Sizes
    number: int  # the seed's, from 1
    wide: bool = True  # also local and pooled FairSynth, permuted groups, and the model-level comparisons
    progress: Progress = lambda _: None

    def run(self) -> Cell:
        """Everything, counted."""
        began, counts = time.monotonic(), _Counts()
        fixed = dict(self._fixed(counts))
        for predictor in self.bench.plan.audit.predictors:
            for approach, added in fixed.items():
                self._data_level(counts, approach, predictor, added)
            self._reweighed(counts, predictor)
            self._fairsynth(counts, predictor)
            if self.wide:
                self._model_level(counts, predictor)
        counts.facts["seconds"] = round(time.monotonic() - began, 1)
        return self._cell(counts)

    # --- data

    def _fixed(self, counts: _Counts) -> Iterator[tuple[str, additions.BySite]]:
        """What approaches add whatever the predictor."""
        bench, synthetic = self.bench, self.sizes.synthetic
        quotas = plan_quotas(bench, synthetic=synthetic)
        yield "real_only", additions.nobody(bench)
        self.progress("training the generator")
        yield "plain_synthetic", additions.plain(bench, synthetic=synthetic)
        yield "double_prioritised", additions.oversampled(bench, synthetic=synthetic)
        yield "cell_balanced", additions.balanced_copies(bench, synthetic=synthetic)
        yield "same_plan_copies", additions.same_copies(bench, quotas)
        yield "same_plan_prefix", additions.by_prefix(bench, quotas)
        oracle = additions.oracle(bench, quotas)
        counts.facts |= {"oracle_elsewhere": oracle.elsewhere, "oracle_repeated": oracle.repeated}
        yield "oracle", oracle.added
        yield "fresh_same_size", additions.fresh(bench, synthetic=synthetic)

    def _data_level(self, counts: _Counts, approach: str, predictor: str, added: additions.BySite) -> None:
        self.progress(f"{approach}, {predictor}")
        self._count(counts, approach, predictor, models=self._fit(predictor, added), added=added)

    def _reweighed(self, counts: _Counts, predictor: str) -> None:
        self.progress(f"reweighing, {predictor}")
        weights = {
            site: reweigh(one.train.group, one.train.label, groups=self.bench.groups)
            for site, one in self.bench.draw.cohorts.items()
        }
        nobody = additions.nobody(self.bench)
        self._count(counts, "reweighing", predictor, models=self._fit(predictor, nobody, weights), added=nobody)

    # --- FairSynth

    def _fairsynth(self, counts: _Counts, predictor: str) -> None:
        """The method, and what it is when sites do not work together, might pool, or have their groups dealt anew."""
        least = self.bench.plan.audit.minimum_positives
        chosen = self._choose(counts, "fairsynth", predictor, bench=self.bench, scope="federated")
        counts.facts[f"selected/{predictor}"] = chosen.kept.guidance.selected.round(4).tolist()
        counts.facts[f"tried/{predictor}"] = [
            {"selected": float(each.guidance.selected.mean()), "f1": each.f1, "worst_tpr": each.worst_tpr(least)}
            for each in chosen.tried
        ]
        if self.wide:
            self._choose(counts, "fairsynth_local", predictor, bench=self.bench, scope="local")
            self._choose(counts, "fairsynth_pooled", predictor, bench=self.bench, scope="pooled")
            permuted = self.permuted
            self._choose(counts, "permuted_groups", predictor, bench=permuted, scope="federated")

    @cached_property
    def permuted(self) -> Bench:
        """The same bench on patients whose groups were dealt out anew."""
        draw = with_permuted_groups(self.bench.draw, seed=stream(self.bench.seed, "permuted"))
        settings = self.bench.teacher_settings
        return Bench(draw=draw, plan=self.bench.plan, seed=self.bench.seed, teacher_settings=settings)

    def _choose(self, counts: _Counts, approach: str, predictor: str, *, bench: Bench, scope: Scope) -> Chosen:
        self.progress(f"{approach}, {predictor}")
        quotas = plan_quotas(bench, synthetic=self.sizes.synthetic)
        chosen = Chooser(
            bench=bench,
            predictor=load_predictor(predictor),
            quotas=quotas,
            candidates=candidates_for(bench, quotas, scope=scope),
            seed=stream(bench.seed, "fairsynth", predictor),
        ).run()
        models = self._fit(predictor, chosen.added, train={site: bench.draw.cohorts[site].train for site in quotas})
        self._count(counts, approach, predictor, models=models, added=chosen.added)
        return chosen

    # --- models

    def _model_level(self, counts: _Counts, predictor: str) -> None:
        """What mends the model instead of the data; nobody is added."""
        self.progress(f"model-level comparisons, {predictor}")
        for approach, models in self._mended(predictor):
            self._count(counts, approach, predictor, models=models, added=additions.nobody(self.bench))

    def _mended(self, predictor: str) -> Iterator[tuple[str, Models]]:
        bench, cohorts, vocabulary = self.bench, self.bench.draw.cohorts, self.bench.draw.vocabulary
        least = bench.plan.audit.minimum_positives
        yield (
            "threshold_optimiser",
            {
                site: optimised(
                    fitted,
                    validation=cohorts[site].validation,
                    vocabulary=vocabulary,
                    constraint="true_positive_rate_parity",
                    objective="balanced_accuracy_score",
                    minimum_positives=least,
                )
                for site, fitted in self._fit(predictor, additions.nobody(bench)).items()
            },
        )
        if predictor == "logistic_regression":
            yield (
                "exponentiated_gradient",
                {
                    site: ExponentiatedGradient(constraint="true_positive_rate_parity").fit(
                        one.train,
                        validation=one.validation,
                        vocabulary=vocabulary,
                        settings=bench.settings,
                        seed=bench.seed,
                    )
                    for site, one in cohorts.items()
                },
            )
        if predictor == "transformer":
            fedavg = self._federated(BySize())
            yield "fedavg", dict.fromkeys(cohorts, fedavg)
            yield (
                "fedavg_site_thresholds",
                {
                    site: equal_rates(fedavg, validation=one.validation, vocabulary=vocabulary, minimum_positives=least)
                    for site, one in cohorts.items()
                },
            )
            validation = {site: one.validation for site, one in cohorts.items()}
            reference = reference_mask(bench.plan)
            fair = self._federated(FairFed(validation=validation, reference=reference, beta=FAIRFED_BETA))
            yield "fairfed", dict.fromkeys(cohorts, fair)
            yield "teacher", dict(bench.teachers())

    def _federated(self, weighting: BySize | FairFed) -> Fitted:
        return federated(
            {site: one.train for site, one in self.bench.draw.cohorts.items()},
            vocabulary=self.bench.draw.vocabulary,
            settings=self.bench.settings,
            seed=stream(self.bench.seed, "federated predictor"),
            rounds=FEDERATED_ROUNDS,
            weighting=weighting,
        )

    # --- fitting and counting

    def _fit(
        self,
        predictor: str,
        added: additions.BySite,
        weights: Mapping[SiteId, FloatArray] | None = None,
        train: Mapping[SiteId, Records] | None = None,
    ) -> Models:
        """Each site's own model; all approaches share a site's seed."""
        real = train or {site: one.train for site, one in self.bench.draw.cohorts.items()}
        return {
            site: load_predictor(predictor).fit(
                Records.concatenate([real[site], added[site]]),
                vocabulary=self.bench.draw.vocabulary,
                settings=self.bench.settings,
                seed=stream(self.bench.seed, "predictor", predictor, site),
                weights=None if weights is None else weights[site],
            )
            for site in self.bench.draw.sites
        }

    def _count(
        self, counts: _Counts, approach: str, predictor: str, *, models: Models, added: additions.BySite
    ) -> None:
        bench, key = self.bench, (approach, predictor)
        cohorts = bench.draw.cohorts
        counts.held_out[key] = np.stack([bench.count(models[site], one.held_out) for site, one in cohorts.items()])
        counts.validation[key] = np.stack([bench.count(models[site], one.validation) for site, one in cohorts.items()])
        counts.added[key] = np.stack(
            [members_of(added[site].group, added[site].label, groups=bench.groups) for site in cohorts]
        )

    def _cell(self, counts: _Counts) -> Cell:
        bench, plan = self.bench, self.bench.plan
        approaches = tuple(dict.fromkeys(approach for approach, _ in counts.held_out))
        predictors = plan.audit.predictors

        def stacked(found: Mapping[tuple[str, str], IntArray]) -> IntArray:
            nothing = np.zeros_like(next(iter(found.values())))
            return np.stack([[found.get((each, name), nothing) for name in predictors] for each in approaches])

        return Cell(
            axes=Axes(
                setting=self.setting,
                real=self.sizes.real,
                synthetic=self.sizes.synthetic,
                seed=self.number,
                approaches=approaches,
                predictors=predictors,
                sites=bench.draw.sites,
                groups=bench.draw.vocabulary.groups,
                reference=plan.groups.reference,
            ),
            held_out=stacked(counts.held_out),
            validation=stacked(counts.validation),
            added=stacked(counts.added),
            train=np.stack([bench.members(site) for site in bench.draw.sites]),
            facts=counts.facts,
        )
