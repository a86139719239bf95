"""What a site does while the sites train their teacher and try its guides; as `site`, the code that meets patients.

In:  the site's folder, a request.   Out: a reply that holds what `messages.py` names.
Never: a row, a score or a trained predictor in a reply; an answer in a study whose plan has no teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from fairsynth.config import StudyPlan
from fairsynth.errors import ProtocolError
from fairsynth.federation.messages import (
    Envelope,
    FeedbackReply,
    FeedbackRequest,
    TeachReply,
    TeachRequest,
    weights_of,
)
from fairsynth.federation.newton import log_loss, sums_of, triangle
from fairsynth.federation.plans import is_taught
from fairsynth.federation.site import Shared, agreed_plan, read_shared, requests_of
from fairsynth.federation.site_folder import SiteFolder, read_site_folder
from fairsynth.federation.terms import Guide, Terms, columns, vector
from fairsynth.schemas import Arrays, IntArray, SiteId
from fairsynth.visits.cohort import load_cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


class Bag(Protocol):
    """`fairsynth.audit.fitting.bag_of_tokens`, given by the caller as `site.Evaluate` is."""

    def __call__(self, records: Records, *, vocabulary: Vocabulary) -> Any:
        """(B, F) 0/1, sparse: which tokens a patient has."""


class Attempt(Protocol):
    """`fairsynth.audit.taught.feedback_site`, given by the caller as `site.Evaluate` is."""

    def __call__(
        self, root: Path, *, site: SiteId, plan: StudyPlan, weights: Arrays, terms: Terms
    ) -> Mapping[str, IntArray]:
        """`validation` (G, 4) and `seen` (G, 4): what a predictor trained by the guide does to real patients."""


def teach(root: Path, request: Envelope, *, bag: Bag) -> Envelope:
    """Add up the loss and its derivatives over the site's patients. Raises ProtocolError."""
    body = TeachRequest.unpack(request)
    here, plan, shared = _in_study(root, body)
    cohort = load_cohort(root)
    requests_of(plan, shared, cohort.vocabulary).teach(body, request.arrays)
    weights = vector(request.arrays, "weights", size=columns(cohort.vocabulary) + 1)
    train, validation = (
        bag(records, vocabulary=cohort.vocabulary).toarray() for records in (cohort.train, cohort.validation)
    )
    with threadpool_limits(limits=plan.training.threads):  # sums depend on it in their last bits
        sums = sums_of(train, cohort.train.label, weights)
        judged = log_loss(validation, cohort.validation.label, weights)
    reply = TeachReply(site=here.site, plan_sha256=body.plan_sha256, loss=sums.loss, validation=judged)
    return reply.pack({"gradient": sums.gradient, "hessian": triangle(sums.hessian)})


def feedback(root: Path, request: Envelope, *, attempt: Attempt) -> Envelope:
    """Add patients by the guide, train, and count real training and validation patients. Raises ProtocolError."""
    body = FeedbackRequest.unpack(request)
    here, plan, shared = _in_study(root, body)
    vocabulary = load_cohort(root).vocabulary
    requests_of(plan, shared, vocabulary).feedback(body, request.arrays)
    guide = Guide.read(request.arrays, vocabulary=vocabulary)
    counts = attempt(
        root,
        site=here.site,
        plan=plan,
        weights=weights_of(request.arrays),
        terms=Terms(exclusive=body.exclusive, guide=guide),
    )
    reply = FeedbackReply(site=here.site, plan_sha256=body.plan_sha256)
    return reply.pack({name: np.asarray(counts[name], dtype=np.int64) for name in ("validation", "seen")})


def _in_study(root: Path, body: TeachRequest | FeedbackRequest) -> tuple[SiteFolder, StudyPlan, Shared]:
    """Who the site is, the plan, which must be the one that was agreed and must have a teacher, and what was agreed."""
    here, plan = read_site_folder(root), agreed_plan(root, body.plan_sha256)
    shared = read_shared(root, plan, vocabulary_sha256=body.vocabulary_sha256)
    if not is_taught(plan):
        raise ProtocolError.of("no teacher in this study", where=body.kind, expected="augmentation.candidates: taught")
    return here, plan, shared
