"""What a site does for each request of a study with noise; with `site`, the code that meets messages and patients.

In:  the site's folder, a request, the work that a study without noise would do.
Out: a reply in which every number has noise, or follows from numbers that have.
Never: a loss, an exact count, a rate without noise in a reply or under the weights of one; noise that was not charged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.errors import CohortError, ConfigError, ProtocolError
from fairsynth.extraction.rules import Rules, read_source
from fairsynth.federation import incoming as door
from fairsynth.federation.bounds import reach
from fairsynth.federation.masking.sealing import request_sha256
from fairsynth.federation.messages import (
    WEIGHT,
    AgreeReply,
    AgreeRequest,
    EnrolReply,
    EnrolRequest,
    Envelope,
    NoisedAuditReply,
    NoisedTrainReply,
    TrainRequest,
)
from fairsynth.federation.noised.household import Household
from fairsynth.federation.noised.proposals import counted_codes, proposed, threshold
from fairsynth.federation.noised.rates import household_of, noised_rates
from fairsynth.federation.noised.releases import (
    CELLS,
    CODES,
    VISITS,
    counts_label,
    prediction_norm,
    training_label,
)
from fairsynth.federation.plans import FAIRSYNTH, counted_rounds, learning_rate, plan_sha256
from fairsynth.federation.site import (
    agreed_plan,
    coefficients_in,
    moments_in,
    read_shared,
    requests_of,
    study_of,
    update_of,
)
from fairsynth.federation.site_folder import read_plan, read_site_folder
from fairsynth.federation.wire import incoming
from fairsynth.generator.base_rates import at_home, to_share
from fairsynth.generator.private import PrivateTraining, train_private
from fairsynth.generator.private_counts import group_counts
from fairsynth.generator.train import Study
from fairsynth.governance.noise import UNIT
from fairsynth.schemas import Arrays, FloatArray, IntArray
from fairsynth.visits.cohort import load_cohort
from fairsynth.visits.prepared import Prepared, read_prepared
from fairsynth.visits.records import Records

MOST_VISITS = 8  # of one patient that are counted
PATIENTS = 1 << 20  # of a site at most, in bounds that must not follow from its patients

Work = Callable[[Path, Envelope], Envelope]


def noised(root: Path, request: Envelope, work: Work) -> Envelope:
    """The reply to `request` with noise, where `work` does what a study without noise would. Raises what it raises,
    and PolicyRefusal past the site's budget.
    """
    if request.kind == EnrolRequest.kind:
        return enrol(root, request, work)
    if request.kind == AgreeRequest.kind:
        return agree(root, request, work)
    if request.kind == TrainRequest.kind:
        return train(root, request)
    if request.kind == "audit":
        return audit(root, request, work)
    raise ProtocolError.of("request without a noised reply", where="kind", expected="enrol, agree, train or audit")


def enrol(root: Path, request: Envelope, work: Work) -> Envelope:
    """Extract and build the cohort, as `work` does; propose codes that stand out of the noise."""
    plan = EnrolRequest.unpack(request).plan
    door.check_plan(plan)
    refuse_ranks(root)
    household = household_of(root, plan, begin=True)  # refuses before the tables are read
    exact = EnrolReply.unpack(work(root, request))
    household.hold_to(exact.data_sha256)
    here = read_prepared(root, plan=plan)
    members = noised_cells(household, here)[0]
    patients = int(members.sum())
    if not 1 <= patients <= PATIENTS:
        raise CohortError.of("no patients stand out of the noise", where="cohort", do="more patients, or more epsilon")
    capped = np.array([np.minimum(here.visits, MOST_VISITS).sum()], dtype=np.int64)
    visits = household.noised(VISITS, capped, sensitivity=MOST_VISITS)
    reply = EnrolReply(
        site=exact.site,
        plan_sha256=exact.plan_sha256,
        data_sha256=household.commitment(exact.data_sha256),
        codes=_codes(household, here, plan=plan),
        visits=max(int(visits[0]), 0),
        flow={},
    )
    return reply.pack({"members": members})


def agree(root: Path, request: Envelope, work: Work) -> Envelope:
    """Encode the cohort, as `work` does; the cells leave with the noise of enrolment."""
    plan = agreed_plan(root, AgreeRequest.unpack(request).plan_sha256)
    exact = AgreeReply.unpack(work(root, request))
    cells = noised_cells(household_of(root, plan), read_prepared(root, plan=plan))
    return exact.model_copy(update={"mapped_share": None}).pack({"cohort": cells})


def train(root: Path, request: Envelope) -> Envelope:
    """Count what the received model predicts where that is due, train it where epochs are asked; both with noise."""
    body = TrainRequest.unpack(request)
    here, plan = read_site_folder(root), agreed_plan(root, body.plan_sha256)
    shared = read_shared(root, plan, vocabulary_sha256=body.vocabulary_sha256)
    cohort = load_cohort(root)
    requests_of(plan, shared, cohort.vocabulary).train(body, request.arrays, root=root)
    door.remember(root, body, request.arrays, plan=plan)
    household = household_of(root, plan)
    patients = int(noised_cells(household, read_prepared(root, plan=plan))[0].sum())
    private = private_training(household, patients=patients)
    received = incoming(request.arrays, WEIGHT, wire=plan.training.wire)
    study = replace(
        study_of(cohort, plan, shared),
        learning_rate=learning_rate(plan, round_number=body.round),
        moments=moments_in(request, wire=plan.training.wire) or private.moments_of_noise(received),
    )
    home = _Home(
        household=household, records=cohort.train, study=study, rates=noised_rates(household, cohort, plan=plan)
    )
    arrays: Arrays = {}
    if body.arm == FAIRSYNTH and body.round in counted_rounds(plan):
        arrays["counts"] = home.counts(received, number=body.round, asked=request_sha256(request))
    if body.epochs:
        limit = reach(plan, round_number=body.round, epochs=body.epochs, patients=PATIENTS, visits=PATIENTS)
        trained = train_private(
            at_home(received, home.rates),
            records=home.records,
            study=study,
            coefficients=coefficients_in(request, plan) if body.arm == FAIRSYNTH else None,
            private=private,
            key=household.key(training_label(body.arm, body.round), given=request_sha256(request).encode()),
            patients=patients,
        )
        moved = to_share(trained.weights, home.rates)
        arrays |= update_of(received, moved, trained.moments, limit=limit, wire=plan.training.wire)
    reply = NoisedTrainReply(
        site=here.site, plan_sha256=body.plan_sha256, arm=body.arm, round=body.round, patients=patients
    )
    return reply.pack(arrays)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Home:
    """What a site counts with: its noise, its training patients, and what it adds to shared weights."""

    household: Household
    records: Records
    study: Study
    rates: FloatArray

    def counts(self, received: Arrays, *, number: int, asked: str) -> IntArray:
        """(G, 3) P, S and TP of the received model in round `number`, fixed point, with noise."""
        norm = prediction_norm(self.study.plan)
        exact = group_counts(at_home(received, self.rates), records=self.records, study=self.study, bound=norm)[:, 1:]
        return self.household.noised(counts_label(number), exact, sensitivity=norm * UNIT, asked=asked)


def private_training(household: Household, *, patients: int) -> PrivateTraining:
    """A round of DP-SGD as the plan has it, of as many `patients` as others know, with noise."""
    releases = household.releases
    noise = releases.plan.privacy.noise
    return PrivateTraining(
        clip=noise.clip,
        noise_multiplier=releases.training.noise_multiplier,
        expected_batch=noise.batch_share * patients,
        steps=noise.steps,
    )


def audit(root: Path, request: Envelope, work: Work) -> Envelope:
    """Generate and evaluate at home, as `work` does; nothing of it leaves: predictors see patients without noise."""
    plan, here = read_plan(root), read_site_folder(root)
    work(root, request)
    return NoisedAuditReply(site=here.site, plan_sha256=plan_sha256(plan)).pack()


def noised_cells(household: Household, here: Prepared) -> IntArray:
    """(3, G, 2) patients by split, group and label, with noise; each patient is in one cell."""
    return household.noised(CELLS, here.cells, sensitivity=1.0)


def refuse_ranks(root: Path) -> None:
    """Raise ConfigError at a source whose patients are numbered by their place among all: one more moves the others."""
    config = read_site_folder(root).config
    _, rules = read_source(config)
    if isinstance(rules, Rules) and rules.identifiers.subject == "text":
        raise ConfigError.of(
            "patients with identifiers that are text, in a study with noise",
            where=f"{config / 'site.yaml'}  source, rules  identifiers.subject",
            expected="whole numbers: texts are numbered by their place among all patients, which one more would move",
            do="give each patient a random whole number in the tables, and keep it",
        )


def _codes(household: Household, here: Prepared, *, plan: StudyPlan) -> dict[str, int]:
    """The proposed codes. Raises CohortError when none stands out."""
    bound = plan.privacy.noise.codes_norm
    sums = counted_codes(here.carried, here.tokens, bound=bound)
    least = threshold(bound=bound, sigma=household.deviation(bound), chance=household.releases.chance)
    found = proposed(
        household.noised(CODES, sums, sensitivity=bound * UNIT),
        here.tokens,
        least=max(least, plan.vocabulary.minimum_patients),
        most=plan.vocabulary.maximum_codes,
    )
    if not found:
        raise CohortError.of(
            "no code stands out of the noise",
            where="vocabulary, training patients of this site",
            expected=f"a code of {math.ceil(least)} patients or more",
            do="a larger epsilon, coarser codes (vocabulary.levels), or a site with more patients",
        )
    return found
