"""What a site does for each request; the only code that meets both messages and patients.

In:  the site's folder, a request.   Out: a reply that holds what `messages.py` names, or `Failed` with a code.
Never: state between requests other than the site's own folder; exception text in a reply.

A site folder begins with `site.json` (site id, folder of `site.yaml`, folder of the raw tables) and collects `events/`,
`visits/`, `cohort/`, `synthetic/`, `audit/`, the plan that the site agreed to, and `site.log`, the site's own log.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from fairsynth import artefacts
from fairsynth.config import Strict, StudyPlan, Wire
from fairsynth.errors import ProtocolError
from fairsynth.federation import incoming as door
from fairsynth.federation.bounds import Reach, reach
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    AgreeReply,
    AgreeRequest,
    AuditReply,
    AuditRequest,
    EnrolReply,
    EnrolRequest,
    Envelope,
    TrainReply,
    TrainRequest,
    weights_of,
)
from fairsynth.federation.own_update import clipped_update, self_check, self_check_counts
from fairsynth.federation.plans import ARMS, FAIRSYNTH, is_taught, learning_rate, plan_sha256
from fairsynth.federation.site_folder import read_file, read_plan, read_site_folder
from fairsynth.federation.terms import Guide, Terms
from fairsynth.federation.wire import answer, incoming, outgoing
from fairsynth.generator.base_rates import at_home, to_share
from fairsynth.generator.priming import Shown
from fairsynth.generator.train import Moments, Study, Totals
from fairsynth.generator.train import measure as measure_model
from fairsynth.generator.train import train as train_model
from fairsynth.schemas import Arrays, FloatArray, IntArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.cohort import Cohort, encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


class Evaluate(Protocol):
    """`fairsynth.audit.site.audit_site`, given by the caller because the audit lies behind federation in the flow."""

    def __call__(
        self, root: Path, *, site: SiteId, plan: StudyPlan, weights: dict[str, Arrays], terms: Terms
    ) -> tuple[AuditReply, Arrays]:
        """The counts of this site's held-out patients."""


class Shared(Strict):
    """`shared.json`: what the agree request fixed, kept for the rounds."""

    plan_sha256: str
    vocabulary_sha256: str
    patients: PositiveInt
    visits: NonNegativeInt
    codes: NonNegativeInt


def enrol(root: Path, request: Envelope) -> Envelope:
    """Extract, build the cohort, propose codes. Raises ConfigError, ExtractionError or CohortError."""
    plan = EnrolRequest.unpack(request).plan
    door.check_plan(plan)
    here = read_site_folder(root)
    if here.site not in plan.roster:
        raise ProtocolError.of("this site is not in the plan's roster", where=here.site)
    from fairsynth.extraction import extract  # 0.3 s that no other message needs: each is a new process

    events = extract(here.data, config=here.config, root=root)
    proposal = prepare(root, config=here.config, plan=plan)
    artefacts.write_text(root / "plan.json", plan.model_dump_json(by_alias=True, indent=2) + "\n")
    door.forget(root)
    least = plan.vocabulary.minimum_patients
    reply = EnrolReply(
        site=here.site,
        plan_sha256=plan_sha256(plan),
        data_sha256=str(artefacts.read_manifest(events, kind="events")["content"]),
        codes={code: int(patients) for code, patients in proposal.codes.items() if patients >= least},
        visits=int(proposal.visits),
        flow={step: int(left) for step, left in proposal.flow.items()},
    )
    return reply.pack({"members": np.asarray(proposal.members, dtype=np.int64)})


def agree(root: Path, request: Envelope) -> Envelope:
    """Encode the cohort with the shared vocabulary. Raises CohortError, ProtocolError."""
    body = AgreeRequest.unpack(request)
    here, plan = read_site_folder(root), agreed_plan(root, body.plan_sha256)
    door.check_agree(body, request.arrays, plan=plan)
    vocabulary = shared_vocabulary(body.codes, plan=plan)
    encoded = encode(root, vocabulary=vocabulary, plan=plan)
    shared = Shared(
        plan_sha256=body.plan_sha256,
        vocabulary_sha256=vocabulary.sha256,
        patients=body.patients,
        visits=body.visits,
        codes=len(body.codes),
    )
    artefacts.write_json(root / "shared.json", shared.model_dump(mode="json"))
    reply = AgreeReply(
        site=here.site,
        plan_sha256=body.plan_sha256,
        vocabulary_sha256=vocabulary.sha256,
        mapped_share=float(encoded.mapped_share),
    )
    arrays: Arrays = {"cohort": np.asarray(encoded.cells, dtype=np.int64)}
    if plan.training.primed:
        shown = Shown.by(load_cohort(root).train, vocabulary=vocabulary)
        arrays |= {"occurs": shown.occurs, "shared": shown.shared}
    return reply.pack(arrays)


def train(root: Path, request: Envelope) -> Envelope:
    """Count what the received model predicts, then train it for the epochs asked. Raises ProtocolError."""
    body = TrainRequest.unpack(request)
    here, plan = read_site_folder(root), agreed_plan(root, body.plan_sha256)
    shared = read_shared(root, plan, vocabulary_sha256=body.vocabulary_sha256)
    cohort = load_cohort(root)
    requests_of(plan, shared, cohort.vocabulary).train(body, request.arrays, root=root)
    door.remember(root, body, request.arrays, plan=plan)
    rate = learning_rate(plan, round_number=body.round)
    study = replace(
        study_of(cohort, plan, shared),
        learning_rate=rate,
        moments=moments_in(request, wire=plan.training.wire),
    )
    rates = Terms(exclusive=body.exclusive).rates(cohort, plan=plan)
    wire = plan.training.wire
    received = incoming(request.arrays, WEIGHT, wire=wire)
    weights, steer = at_home(received, rates), coefficients_in(request, plan)
    before = measure_model(weights, records=cohort.train, study=study)
    ahead = _losses(weights, cohort.validation, study)
    after: Arrays = {}
    bounded = False
    if body.epochs:
        trained = train_model(
            weights,
            records=cohort.train,
            study=study,
            coefficients=steer if body.arm == FAIRSYNTH else None,
            epochs=body.epochs,
            seed=stream(plan.seed, "train", here.site, body.round),  # the same in both arms
        )
        limit = reach(
            plan,
            round_number=body.round,
            epochs=body.epochs,
            patients=len(cohort.train),
            visits=cohort.train.visits,
        )
        after = update_of(received, to_share(trained.weights, rates), trained.moments, limit=limit, wire=wire)
        bounded = bool(trained.bounded)
    reply = TrainReply(
        site=here.site,
        plan_sha256=body.plan_sha256,
        arm=body.arm,
        round=body.round,
        patients=len(cohort.train),
        nll_train=float(before.nll),
        nll_validation=ahead[0],
        cells_train=int(before.cells),
        cells_validation=ahead[1],
        bounded=bounded,
    )
    counts = {name: np.asarray(getattr(before, name), dtype=np.float64) for name in ("soft", "hard")}
    cells = int(before.cells) * len(cohort.vocabulary.codes)
    self_check_counts(counts, cells=cells, members=_members(cohort.train, groups=len(plan.groups.names)), plan=plan)
    return reply.pack({**after, **counts})


def audit(root: Path, request: Envelope, *, evaluate: Evaluate) -> Envelope:
    """Generate at home, train the predictors, evaluate on real held-out patients; counts leave."""
    body = AuditRequest.unpack(request)
    here, plan = read_site_folder(root), agreed_plan(root, body.plan_sha256)
    shared = read_shared(root, plan, vocabulary_sha256=body.vocabulary_sha256)
    vocabulary = load_cohort(root).vocabulary
    requests_of(plan, shared, vocabulary).audit(body, request.arrays)
    weights = {arm: weights_of(request.arrays, f"{arm}/weight/") for arm in ARMS}
    guide = Guide.read(request.arrays, vocabulary=vocabulary) if is_taught(plan) else None
    terms = Terms(exclusive=body.exclusive, guide=guide)
    reply, arrays = evaluate(root, site=here.site, plan=plan, weights=weights, terms=terms)
    return reply.model_copy(update={"plan_sha256": body.plan_sha256}).pack(arrays)


def shared_by(root: Path) -> Shared:
    """What the agree request fixed. Raises ArtefactError when there was none."""
    return read_file(root / "shared.json", Shared)


def agreed_plan(root: Path, sha256: str) -> StudyPlan:
    """The plan that this site enrolled for, which must be the one that the request names."""
    plan = read_plan(root)
    if plan_sha256(plan) != sha256:
        raise ProtocolError.of("request of another study", where="plan_sha256", expected="the plan of enrolment")
    return plan


def read_shared(root: Path, plan: StudyPlan, *, vocabulary_sha256: str) -> Shared:
    """What was agreed, which must be what the request names."""
    shared = shared_by(root)
    if (shared.plan_sha256, shared.vocabulary_sha256) != (plan_sha256(plan), vocabulary_sha256):
        raise ProtocolError.of("request of another study", where="vocabulary_sha256", expected="the agreed one")
    return shared


def requests_of(plan: StudyPlan, shared: Shared, vocabulary: Vocabulary) -> door.Requests:
    """The site's door for requests after the cohort was encoded."""
    return door.Requests(plan=plan, vocabulary=vocabulary, patients=shared.patients, visits=shared.visits)


def update_of(received: Arrays, moved: Arrays, moments: Moments, *, limit: Reach, wire: Wire) -> Arrays:
    """Weights and moments as they travel, once the site has checked them itself: masked, nobody else could.

    Raises ProtocolError when they are not what training can have come to.
    """
    self_check(received, moved, moments=moments, limit=limit)
    kept = clipped_update(moved, received, clip=limit.norm(received)).weights
    return {
        **answer(kept, received=received, wire=wire),
        **outgoing(moments.first, FIRST, wire=wire),
        **outgoing(moments.second, SECOND, wire=wire),
    }


def _members(records: Records, *, groups: int) -> IntArray:
    """(G, 2) patients by group and label."""
    found = np.zeros((groups, 2), dtype=np.int64)
    np.add.at(found, (records.group, records.label), 1)
    return found


def study_of(cohort: Cohort, plan: StudyPlan, shared: Shared) -> Study:
    """Plan, vocabulary and pooled totals as the generator takes them."""
    if cohort.vocabulary.sha256 != shared.vocabulary_sha256:
        raise ProtocolError.of("cohort of another vocabulary", where="cohort/", expected="the agreed vocabulary")
    positions = (shared.visits + shared.patients) / shared.patients  # the label visit is a predicted position too
    totals = Totals(patients=shared.patients, positions=positions)
    return Study(vocabulary=cohort.vocabulary, plan=plan, totals=totals)


def coefficients_in(request: Envelope, plan: StudyPlan) -> FloatArray:
    """(G, 2) of the request. Raises ProtocolError when they are not finite numbers of that shape."""
    values = request.arrays.get("coefficients")
    if values is None or values.dtype != np.float64 or values.shape != (len(plan.groups.names), 2):
        raise ProtocolError.of("coefficients missing or of another shape", where="train", expected="float64 (G, 2)")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ProtocolError.of("coefficients that are not finite", where="train")
    return numbers


def moments_in(request: Envelope, *, wire: Wire) -> Moments | None:
    """The optimiser's moments that the server averaged; none in an arm's first round."""
    first, second = (incoming(request.arrays, prefix, wire=wire) for prefix in (FIRST, SECOND))
    return Moments(first=first, second=second) if first or second else None


def _losses(weights: Arrays, records: Records, study: Study) -> tuple[float, int]:
    """Summed negative log-likelihood and number of visits; zero of both where there is nobody."""
    if not len(records):
        return 0.0, 0
    measured = measure_model(weights, records=records, study=study)
    return float(measured.nll), int(measured.cells)
