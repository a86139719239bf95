"""One trial: every approach and predictor on one seed's patients, counted on real held-out patients.

In:  a pool, a setting's plan, sizes and a seed.   Out: a `Cell` for each number of synthetic patients.
Never: an approach that sees other real patients than the others (but for the oracle and `fresh_same_size`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from fairsynth.audit.federated_predictor import BySize, FairFed, federated
from fairsynth.audit.fitting import Fitted
from fairsynth.audit.mitigation import ExponentiatedGradient
from fairsynth.audit.thresholds import equal_rates, optimised
from fairsynth.augmentation.reweighing import reweigh
from fairsynth.experiments.evidence import additions
from fairsynth.experiments.evidence.bench import Bench, Scope, with_permuted_groups
from fairsynth.experiments.evidence.cells import Cell
from fairsynth.experiments.evidence.chosen import Chosen, chooser, plan_quotas
from fairsynth.experiments.evidence.counting import Counts, Models, Progress, Sizes, fit
from fairsynth.federation.plans import reference_mask
from fairsynth.seeds import stream

__all__ = ["Sizes", "Trial"]

FEDERATED_ROUNDS = 4  # of a federated predictor; a round is one pass over each site's patients
FAIRFED_BETA = 10.0  # soft gaps are some hundredths: with 1, the weights are FedAvg's


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
        began, counts = time.monotonic(), Counts(bench=self.bench)
        fixed = dict(self._fixed(counts))
        for predictor in self.bench.plan.audit.predictors:
            for approach, added in fixed.items():
                self._data_level(counts, approach, predictor, added)
            self._reweighed(counts, predictor)
            self._fairsynth(counts, predictor)
            if self.wide:
                self._model_level(counts, predictor)
        counts.facts["seconds"] = round(time.monotonic() - began, 1)
        return counts.cell(setting=self.setting, sizes=self.sizes, number=self.number)

    # --- data

    def _fixed(self, counts: Counts) -> Iterator[tuple[str, additions.BySite]]:
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

    def _data_level(self, counts: Counts, approach: str, predictor: str, added: additions.BySite) -> None:
        self.progress(f"{approach}, {predictor}")
        counts.count(approach, predictor, models=fit(self.bench, predictor=predictor, added=added), added=added)

    def _reweighed(self, counts: Counts, predictor: str) -> None:
        self.progress(f"reweighing, {predictor}")
        weights = {
            site: reweigh(one.train.group, one.train.label, groups=self.bench.groups)
            for site, one in self.bench.draw.cohorts.items()
        }
        nobody = additions.nobody(self.bench)
        models = fit(self.bench, predictor=predictor, added=nobody, weights=weights)
        counts.count("reweighing", predictor, models=models, added=nobody)

    # --- FairSynth

    def _fairsynth(self, counts: Counts, predictor: str) -> None:
        """The method, and what it is when sites do not work together, might pool, or have their groups dealt anew."""
        least = self.bench.plan.audit.minimum_positives
        chosen = self._choose(counts, "fairsynth", predictor, bench=self.bench, scope="federated")
        counts.facts[f"selected/{predictor}"] = chosen.kept.selected.round(4).tolist()
        counts.facts[f"tried/{predictor}"] = [
            {"selected": float(each.selected.mean()), "f1": each.f1, "worst_tpr": each.worst_tpr(least)}
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
        return replace(self.bench, draw=draw, _generators={}, _weights={}, _teachers={}, _candidates={})

    def _choose(self, counts: Counts, approach: str, predictor: str, *, bench: Bench, scope: Scope) -> Chosen:
        self.progress(f"{approach}, {predictor}")
        quotas = plan_quotas(bench, synthetic=self.sizes.synthetic)
        chosen = chooser(bench, predictor=predictor, quotas=quotas, scope=scope).run()
        train = {site: bench.draw.cohorts[site].train for site in quotas}
        models = fit(self.bench, predictor=predictor, added=chosen.added, train=train)
        counts.count(approach, predictor, models=models, added=chosen.added)
        return chosen

    # --- models

    def _model_level(self, counts: Counts, predictor: str) -> None:
        """What mends the model instead of the data; nobody is added."""
        self.progress(f"model-level comparisons, {predictor}")
        for approach, models in self._mended(predictor):
            counts.count(approach, predictor, models=models, added=additions.nobody(self.bench))

    def _mended(self, predictor: str) -> Iterator[tuple[str, Models]]:
        bench, cohorts, vocabulary = self.bench, self.bench.draw.cohorts, self.bench.draw.vocabulary
        least = bench.plan.audit.minimum_positives
        own = fit(bench, predictor=predictor, added=additions.nobody(bench))
        yield "threshold_optimiser", self._optimised(own)
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
            yield "teacher_optimised", self._optimised(bench.teachers())

    def _optimised(self, models: Models) -> Models:
        """The same models with thresholds by group that each site chooses on its own validation patients."""
        return {
            site: optimised(
                fitted,
                validation=self.bench.draw.cohorts[site].validation,
                vocabulary=self.bench.draw.vocabulary,
                constraint="true_positive_rate_parity",
                objective="balanced_accuracy_score",
                minimum_positives=self.bench.plan.audit.minimum_positives,
            )
            for site, fitted in models.items()
        }

    def _federated(self, weighting: BySize | FairFed) -> Fitted:
        return federated(
            {site: one.train for site, one in self.bench.draw.cohorts.items()},
            vocabulary=self.bench.draw.vocabulary,
            settings=self.bench.settings,
            seed=stream(self.bench.seed, "federated predictor"),
            rounds=FEDERATED_ROUNDS,
            weighting=weighting,
        )
