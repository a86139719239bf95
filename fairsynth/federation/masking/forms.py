"""What of each kind of reply is masked, and what it becomes again in the sum of all sites.

In:  a request and what was agreed.   Out: a `Form`.
Never: a number of one site outside the vector; a decision.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.errors import ProtocolError
from fairsynth.federation.masking import codes as sketch
from fairsynth.federation.masking.form import (
    Fields,
    Form,
    Known,
    Used,
    counts_of,
    model_records,
    models_in,
    patients_of,
    too_early,
)
from fairsynth.federation.masking.noised_forms import noised_audited, noised_trained
from fairsynth.federation.masking.records import MAXIMUM_PATIENTS, Record, Schema, bits_for
from fairsynth.federation.messages import (
    AgreeReply,
    AgreeRequest,
    AuditReply,
    EnrolReply,
    Envelope,
    FeedbackReply,
    FeedbackRequest,
    TeachReply,
    TeachRequest,
    TrainReply,
    TrainRequest,
    weights_of,
)
from fairsynth.federation.newton import symmetric, triangle
from fairsynth.federation.plans import APPROACHES, SCORE_BINS, THRESHOLDS
from fairsynth.generator.priming import runs
from fairsynth.schemas import Arrays
from fairsynth.visits.cohort import shared_vocabulary

CONTRIBUTING = "contributing"  # (G,) sites with a training patient of the group

_LOSS_BITS, _LOSS_BOUND = 20, float(1 << 35)  # nats of a site; expected counts of a group
_NATS = 128.0  # of one patient, under the teacher

Maker = Callable[[Envelope, StudyPlan, Known | None], Form]


def form_of(request: Envelope, *, plan: StudyPlan, known: Known | None) -> Form:
    """The form of the reply to `request`. Raises ProtocolError on a request that has none, or comes before agree."""
    makers: dict[str, Maker] = {"enrol": _enrolled, "agree": _agreed}
    if plan.privacy.noised:
        makers |= {"train": noised_trained, "audit": noised_audited}
    else:
        makers |= {"train": _trained, "teach": _taught, "feedback": _fed_back, "audit": _audited}
    if request.kind not in makers:
        raise ProtocolError.of("request without a masked reply", where="kind", expected=f"one of {sorted(makers)}")
    return makers[request.kind](request, plan, known)


def _loss(name: str) -> Record:
    return Record(name=name, shape=(), bits=_LOSS_BITS, bound=_LOSS_BOUND)


def _enrolled(request: Envelope, plan: StudyPlan, _: Known | None) -> Form:
    groups, capacity = len(plan.groups.names), 2 * plan.vocabulary.maximum_codes
    noised = plan.privacy.noised
    records = (
        counts_of("members", groups, 2, noised=noised),
        *(() if noised else (counts_of(CONTRIBUTING, groups),)),
        counts_of("visits", noised=noised),
        counts_of("codes", *sketch.shape(capacity)),
        Record(name="data", shape=(4,), words=True),
    )

    def of_fields(fields: Fields) -> Arrays:
        named = [code for code in fields["codes"] if sketch.fits(code)]
        most = sorted(named, key=lambda code: (-fields["codes"][code], code))[: plan.vocabulary.maximum_codes]
        return {
            "visits": np.array(fields["visits"], dtype=np.int64),
            "codes": sketch.table({code: fields["codes"][code] for code in most}, capacity=capacity),
            "data": np.frombuffer(bytes.fromhex(fields["data_sha256"]), dtype="<u8"),
        }

    def to_fields(arrays: Arrays, _: int) -> Fields:
        union = sketch.union(np.asarray(arrays["codes"], dtype=np.int64))
        return {
            "visits": max(int(arrays["visits"]), 0),  # below 0 by noise alone
            "codes": {code: patients for code, (_, patients) in union.items()},
            "data_sha256": np.ascontiguousarray(arrays["data"], dtype="<i8").tobytes().hex(),
            "flow": {},
        }

    def of_arrays(arrays: Arrays) -> Arrays:
        if noised:
            return arrays
        return {"members": arrays["members"], CONTRIBUTING: (arrays["members"].sum(axis=1) > 0).astype(np.int64)}

    return Form(
        kind=EnrolReply.kind,
        purpose="enrol",
        schema=Schema(records=records),
        axis={"members": 0},
        of_fields=of_fields,
        to_fields=to_fields,
        of_arrays=of_arrays,
        to_arrays=lambda arrays: {"members": arrays["members"]},
        noised=noised,
    )


def _agreed(request: Envelope, plan: StudyPlan, _: Known | None) -> Form:
    vocabulary = shared_vocabulary(AgreeRequest.unpack(request).codes, plan=plan)
    groups = len(plan.groups.names)
    primed = (
        (counts_of("occurs", vocabulary.layout.size), counts_of("shared", len(runs(vocabulary))))
        if plan.training.primed
        else ()
    )
    names = ("cohort", *(record.name for record in primed))

    def cut(arrays: Arrays, used: Used) -> Arrays:
        """Without the tokens of groups that are left out."""
        if not primed:
            return arrays
        occurs = np.array(arrays["occurs"], dtype=np.int64)
        occurs[vocabulary.layout.groups][~used] = 0
        return {**arrays, "occurs": occurs}

    noised = plan.privacy.noised
    share = () if noised else (Record(name="mapped_share", shape=(), bits=40, bound=1.0),)
    return Form(
        kind=AgreeReply.kind,
        purpose="agree",
        schema=Schema(records=(counts_of("cohort", 3, groups, 2, noised=noised), *share, *primed)),
        said=("vocabulary_sha256",),
        axis={"cohort": 1},
        cut=cut,
        of_fields=lambda fields: {one.name: np.array(fields[one.name], dtype=np.float64) for one in share},
        to_fields=lambda arrays, sites: {one.name: min(float(arrays[one.name]) / sites, 1.0) for one in share},
        noised=noised,
        to_arrays=lambda arrays: {name: arrays[name] for name in names},
    )


def _trained(request: Envelope, plan: StudyPlan, known: Known | None) -> Form:
    body, patients, groups = TrainRequest.unpack(request), patients_of(known), len(plan.groups.names)
    shapes = {name: array.shape for name, array in weights_of(request.arrays).items()} if body.epochs else {}
    soft = Record(name="soft", shape=(groups, 4), bits=_LOSS_BITS, bound=_LOSS_BOUND)
    counted = ("patients", "cells_train", "cells_validation", "bounded")
    losses = ("nll_train", "nll_validation")
    records = (*map(counts_of, counted), *map(_loss, losses), soft, counts_of("hard", groups, 4))

    def of_arrays(arrays: Arrays) -> Arrays:
        return {**arrays, "hard": np.rint(arrays["hard"].astype(np.float64)).astype(np.int64)}

    def to_arrays(arrays: Arrays) -> Arrays:
        return {**models_in(arrays), "soft": arrays["soft"], "hard": np.asarray(arrays["hard"], dtype=np.float64)}

    return Form(
        kind=TrainReply.kind,
        purpose=f"train|{body.arm}|{body.round}",
        schema=Schema(records=(*records, *model_records(shapes)), patients=patients),
        said=("arm", "round"),
        axis={"soft": 0, "hard": 0},
        of_fields=lambda fields: {
            **{name: np.array(fields[name], dtype=np.int64) for name in counted},
            **{name: np.array(fields[name], dtype=np.float64) for name in losses},
        },
        to_fields=lambda arrays, _: {
            **{name: int(arrays[name]) for name in counted},
            **{name: float(arrays[name]) for name in losses},
            "bounded": bool(arrays["bounded"]),
        },
        of_arrays=of_arrays,
        to_arrays=to_arrays,
    )


def _taught(request: Envelope, plan: StudyPlan, known: Known | None) -> Form:
    body = TeachRequest.unpack(request)
    if known is None:
        raise too_early()
    size = len(request.arrays["weights"])
    losses = ("loss", "validation")
    bound, whole = _NATS * MAXIMUM_PATIENTS, float(MAXIMUM_PATIENTS)
    records = (
        *(Record(name=name, shape=(), bits=bits_for(bound), bound=bound) for name in losses),
        Record(name="gradient", shape=(size,), bits=bits_for(whole), bound=whole, lower=-whole),
        Record(name="hessian", shape=(size * (size + 1) // 2,), bits=bits_for(whole), bound=whole, lower=-whole),
    )

    def cut(arrays: Arrays, used: Used) -> Arrays:
        """Without the tokens of groups that are left out: they follow the codes (`TokenLayout`)."""
        if used.all():
            return arrays
        places = known.codes + np.flatnonzero(~used)
        gradient = np.array(arrays["gradient"], dtype=np.float64)
        hessian = symmetric(np.asarray(arrays["hessian"], dtype=np.float64), size=size)
        gradient[places] = 0
        hessian[places, :] = hessian[:, places] = 0
        return {**arrays, "gradient": gradient, "hessian": triangle(hessian)}

    return Form(
        kind=TeachReply.kind,
        cut=cut,
        purpose=f"teach|{body.number}",
        schema=Schema(records=records),
        of_fields=lambda fields: {name: np.array(fields[name], dtype=np.float64) for name in losses},
        to_fields=lambda arrays, _: {name: float(arrays[name]) for name in losses},
        to_arrays=lambda arrays: {name: arrays[name] for name in ("gradient", "hessian")},
    )


def _fed_back(request: Envelope, plan: StudyPlan, _: Known | None) -> Form:
    groups = len(plan.groups.names)
    return Form(
        kind=FeedbackReply.kind,
        purpose=f"feedback|{FeedbackRequest.unpack(request).number}",
        schema=Schema(records=(counts_of("validation", groups, 4), counts_of("seen", groups, 4))),
        axis={"validation": 0, "seen": 0},
    )


def _audited(request: Envelope, plan: StudyPlan, known: Known | None) -> Form:
    if known is None:
        raise too_early()
    a, p, k, h = len(APPROACHES), len(plan.audit.predictors), plan.audit.seeds, len(THRESHOLDS)
    g = len(plan.groups.names)
    records = (
        counts_of("confusion", a, p, k, h, g, 4),
        counts_of("scores", a, p, k, g, 2, SCORE_BINS),
        counts_of("synthetic", a, g, 2),
        counts_of("code_visits", 3, known.codes),
        counts_of("code_totals", 3),
        counts_of("alone", 2, g, 2, SCORE_BINS),
    )
    return Form(
        kind=AuditReply.kind,
        purpose="audit",
        schema=Schema(records=records),
        said=("approaches", "predictors", "thresholds", "seeds"),
        axis={"confusion": 4, "scores": 3, "synthetic": 1, "alone": 1},
        to_fields=lambda _, __: {"changes": []},  # what a site's patients say of it stays with the site
    )
