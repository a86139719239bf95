"""One seed's patients, and what is made of them once for all approaches: generators, teachers, candidates.

In:  a `Draw`, the plan, a seed.   Out: `Bench`, whose parts are made when they are first asked for.
Never: held-out patients in anything that is made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fairsynth.audit.evaluate import blind_scores, histogram
from fairsynth.audit.fitting import FitSettings, Fitted
from fairsynth.audit.teacher import Teacher, teach
from fairsynth.augmentation.plan import members_of
from fairsynth.config import StudyPlan
from fairsynth.experiments.evidence.drawing import Draw
from fairsynth.experiments.evidence.training import Trained, generator
from fairsynth.schemas import Arrays, FloatArray, IntArray, SiteId
from fairsynth.seeds import numpy_stream, stream
from fairsynth.synthesis.synthesise import synthesise_groups
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.records import Records

HOME_ROUNDS = 8  # of a site alone, at the end

Scope = Literal["federated", "local", "pooled"]  # who trains generator and teacher together


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """A site's candidates, and the teacher's scores of them."""

    records: Records
    scores: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """What the approaches of one seed share."""

    draw: Draw
    plan: StudyPlan
    seed: int
    home_rounds: int = HOME_ROUNDS  # of the common generator at each site, alone
    _generators: dict[str, Trained] = field(default_factory=dict)
    _weights: dict[Scope, dict[SiteId, Arrays]] = field(default_factory=dict)
    _teachers: dict[Scope, dict[SiteId, Teacher]] = field(default_factory=dict)
    _candidates: dict[tuple[SiteId, Scope, bytes], Candidates] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """G."""
        return len(self.draw.vocabulary.groups)

    @property
    def settings(self) -> FitSettings:
        """What the plan fixes about fitting predictors."""
        return FitSettings(epochs=self.plan.audit.epochs, threads=self.plan.training.threads)

    def members(self, site: SiteId) -> IntArray:
        """(G, 2) the site's real training patients by cell."""
        train = self.draw.cohorts[site].train
        return members_of(train.group, train.label, groups=self.groups)

    def budgets(self, synthetic: int) -> dict[SiteId, int]:
        """Patients that each site may add of `synthetic` in all, in proportion to its real ones."""
        sizes = {site: len(one.train) for site, one in self.draw.cohorts.items()}
        return {site: round(synthetic * size / sum(sizes.values())) for site, size in sizes.items()}

    def weights(self, scope: Scope = "federated") -> dict[SiteId, Arrays]:
        """Each site's generator."""
        if scope not in self._weights:
            self._weights[scope] = self._trained(scope)
        return self._weights[scope]

    def generator(self) -> Trained:
        """The federated generator, with what going on from it needs."""
        if "federated" not in self._generators:
            seed = stream(self.seed, "generator")
            self._generators["federated"] = generator(self.draw.cohorts, plan=self.plan, seed=seed)
        return self._generators["federated"]

    def with_weights(self, weights: Mapping[SiteId, Arrays]) -> Bench:
        """The same bench and teachers, with these weights as the federated generator of each site."""
        return replace(self, _generators={}, _weights={"federated": dict(weights)}, _candidates={})

    def teachers(self, scope: Scope = "federated") -> dict[SiteId, Teacher]:
        """Each site's teacher; pooled, one for all."""
        if scope not in self._teachers:
            self._teachers[scope] = self._taught(scope)
        return self._teachers[scope]

    def candidates(self, site: SiteId, *, number: IntArray, scope: Scope = "federated") -> Candidates:
        """`number[g]` candidates of each group, of the generator and with the scores of the teacher of `scope`."""
        key = (site, scope, number.tobytes())
        if key not in self._candidates:
            self._candidates[key] = self._drawn(site, number=number, scope=scope)
        return self._candidates[key]

    def _drawn(self, site: SiteId, *, number: IntArray, scope: Scope) -> Candidates:
        records = synthesise_groups(
            self.weights(scope)[site],
            cohort=self.draw.cohorts[site],
            plan=self.plan,
            number=number,
            seed=stream(self.seed, "candidates", scope, site),
        )
        scores = blind_scores(self.teachers(scope)[site], records, vocabulary=self.draw.vocabulary)
        return Candidates(records=records, scores=scores)

    def count(self, fitted: Fitted, records: Records) -> IntArray:
        """(G, 2, 200) the histogram of a model's scores of real patients."""
        scores = blind_scores(fitted, records, vocabulary=self.draw.vocabulary)
        return histogram(scores, label=records.label, group=records.group, groups=self.groups)

    def _trained(self, scope: Scope) -> dict[SiteId, Arrays]:
        cohorts, plan, seed = self.draw.cohorts, self.plan, stream(self.seed, "generator")
        if scope == "local":
            alone = {site: generator({site: one}, plan=plan, seed=seed) for site, one in cohorts.items()}
            return {site: one.at(site) for site, one in alone.items()}
        if scope == "pooled":
            everyone = SiteId("all")
            together = generator({everyone: self.draw.pooled()}, plan=plan, seed=seed)
            return self.at_home(replace(together, rates=dict.fromkeys(cohorts, together.rates[everyone])))
        return self.at_home(self.generator())

    def at_home(self, common: Trained) -> dict[SiteId, Arrays]:
        """What each site makes of a common generator."""
        return {
            site: common.settled(
                site,
                one,
                plan=self.plan,
                rounds=self.home_rounds,
                seed=stream(stream(self.seed, "home", site), "home"),
            )
            for site, one in self.draw.cohorts.items()
        }

    def _taught(self, scope: Scope) -> dict[SiteId, Teacher]:
        cohorts = self.draw.cohorts
        if scope == "local":
            return {site: self._teach({site: one})[site] for site, one in cohorts.items()}
        if scope == "pooled":
            everyone = SiteId("all")
            return dict.fromkeys(cohorts, self._teach({everyone: self.draw.pooled()})[everyone])
        return self._teach(cohorts)

    def _teach(self, cohorts: Mapping[SiteId, Cohort]) -> dict[SiteId, Teacher]:
        return teach(
            {site: one.train for site, one in cohorts.items()},
            validation={site: one.validation for site, one in cohorts.items()},
            vocabulary=self.draw.vocabulary,
            threads=self.plan.training.threads,
            seed=stream(self.seed, "teacher"),
        )


def with_permuted_groups(draw: Draw, *, seed: int) -> Draw:
    """The same patients, the groups of each site's training patients dealt out among them anew: a negative control."""
    return replace(
        draw,
        cohorts={
            site: replace(one, train=_dealt(one.train, seed=stream(seed, "permuted", site), cohort=one))
            for site, one in draw.cohorts.items()
        },
    )


def _dealt(train: Records, *, seed: int, cohort: Cohort) -> Records:
    columns = cohort.vocabulary.layout.groups
    group = numpy_stream(seed, "groups").permutation(train.group)
    owner = np.repeat(np.arange(len(train)), np.diff(train.context_offsets))
    is_group = (train.context >= columns.start) & (train.context < columns.stop)
    context = np.where(is_group, columns.start + group[owner], train.context)
    return replace(train, context=context, group=group)
