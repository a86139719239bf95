"""What of each kind of reply is masked, what is the same at every site and said openly, and what stays at home.

In:  a request and what was agreed.   Out: a `Form`: the vector's schema, a reply taken apart, the sum as a reply.
Never: a number of one site outside the vector; a decision.

The sum of all sites is put together as the reply of one site, `POOLED`, so that the server's door (`validation`) holds
the sum to every rule that it would hold a site to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.errors import ProtocolError
from fairsynth.federation.masking import codes as sketch
from fairsynth.federation.masking.records import MAXIMUM_PATIENTS, Record, Schema, bits_for
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
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
from fairsynth.federation.plans import APPROACHES, POOLED, SCORE_BINS, THRESHOLDS, plan_sha256
from fairsynth.generator.priming import runs
from fairsynth.schemas import Arrays
from fairsynth.visits.cohort import shared_vocabulary

CONTRIBUTING = "contributing"  # (G,) sites with a training patient of the group

WEIGHT_BITS, WEIGHT_BOUND = 24, 1 << 10
_MOMENT_BOUND = 2  # of moments of gradients of norm 1 at most
_LOSS_BITS, _LOSS_BOUND = 20, float(1 << 35)  # nats of a site; expected counts of a group
_NATS = 128.0  # of one patient, under the teacher

Fields = dict[str, Any]
Used = np.ndarray[Any, np.dtype[np.bool_]]  # (G,) groups that are not left out


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the agree request fixed: n, and C."""

    patients: int
    codes: int


@dataclass(frozen=True, kw_only=True)
class Form:
    """How one kind of reply is masked.

    said      fields that are the same at every site, as they are
    fields    fields that are added up, by record
    axis      of groups, by array: where a group is left out, its part of the sum is
    """

    kind: str
    purpose: str
    schema: Schema
    said: tuple[str, ...] = ()
    fields: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    axis: Mapping[str, int] = field(default_factory=dict)
    of_fields: Callable[[Fields], Arrays] = lambda _: {}
    to_fields: Callable[[Arrays, int], Fields] = lambda _, __: {}
    of_arrays: Callable[[Arrays], Arrays] = lambda arrays: arrays
    to_arrays: Callable[[Arrays], Arrays] = lambda arrays: arrays
    cut: Callable[[Arrays, Used], Arrays] = lambda arrays, _: arrays  # what `axis` cannot say


def form_of(request: Envelope, *, plan: StudyPlan, known: Known | None) -> Form:
    """The form of the reply to `request`. Raises ProtocolError on a request that has none, or comes before agree."""
    makers: dict[str, Callable[[Envelope, StudyPlan, Known | None], Form]] = {
        "enrol": _enrolled,
        "agree": _agreed,
        "train": _trained,
        "teach": _taught,
        "feedback": _fed_back,
        "audit": _audited,
    }
    if request.kind not in makers:
        raise ProtocolError.of("request without a masked reply", where="kind", expected=f"one of {sorted(makers)}")
    return makers[request.kind](request, plan, known)


def taken_apart(form: Form, reply: Envelope) -> tuple[Fields, Arrays]:
    """A site's plain reply as what is said openly and what is masked."""
    fields: Fields = json.loads(reply.fields)
    return {name: fields[name] for name in form.said}, {**form.of_fields(fields), **form.of_arrays(reply.arrays)}


def put_together(form: Form, said: Fields, arrays: Arrays, *, plan: StudyPlan, sites: int) -> Envelope:
    """The reply of `POOLED`, of the arrays of the sum of so many sites."""
    fields = {"site": POOLED, "plan_sha256": plan_sha256(plan), **said, **form.to_fields(arrays, sites)}
    return Envelope(kind=form.kind, fields=json.dumps(fields, allow_nan=False), arrays=form.to_arrays(arrays))


def without(arrays: Arrays, form: Form, *, used: Used) -> Arrays:
    """`arrays` with zeros for the groups that are not used."""
    kept = dict(arrays)
    for name, axis in form.axis.items():
        shape = [1] * kept[name].ndim
        shape[axis] = len(used)
        kept[name] = np.where(used.reshape(shape), kept[name], np.zeros((), dtype=kept[name].dtype))
    return form.cut(kept, used)


def _counts(name: str, *shape: int) -> Record:
    return Record(name=name, shape=shape)


def _loss(name: str) -> Record:
    return Record(name=name, shape=(), bits=_LOSS_BITS, bound=_LOSS_BOUND)


def _enrolled(request: Envelope, plan: StudyPlan, _: Known | None) -> Form:
    groups, capacity = len(plan.groups.names), 2 * plan.vocabulary.maximum_codes
    records = (
        _counts("members", groups, 2),
        _counts(CONTRIBUTING, groups),
        _counts("visits"),
        _counts("codes", *sketch.shape(capacity)),
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
            "visits": int(arrays["visits"]),
            "codes": {code: patients for code, (_, patients) in union.items()},
            "data_sha256": np.ascontiguousarray(arrays["data"], dtype="<i8").tobytes().hex(),
            "flow": {},
        }

    def of_arrays(arrays: Arrays) -> Arrays:
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
    )


def _agreed(request: Envelope, plan: StudyPlan, _: Known | None) -> Form:
    vocabulary = shared_vocabulary(AgreeRequest.unpack(request).codes, plan=plan)
    groups = len(plan.groups.names)
    primed = (
        (_counts("occurs", vocabulary.layout.size), _counts("shared", len(runs(vocabulary))))
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

    share = Record(name="mapped_share", shape=(), bits=40, bound=1.0)
    return Form(
        kind=AgreeReply.kind,
        purpose="agree",
        schema=Schema(records=(_counts("cohort", 3, groups, 2), share, *primed)),
        said=("vocabulary_sha256",),
        axis={"cohort": 1},
        cut=cut,
        of_fields=lambda fields: {"mapped_share": np.array(fields["mapped_share"], dtype=np.float64)},
        to_fields=lambda arrays, sites: {"mapped_share": min(float(arrays["mapped_share"]) / sites, 1.0)},
        to_arrays=lambda arrays: {name: arrays[name] for name in names},
    )


def _trained(request: Envelope, plan: StudyPlan, known: Known | None) -> Form:
    body, patients, groups = TrainRequest.unpack(request), _patients(known), len(plan.groups.names)
    shapes = {name: array.shape for name, array in weights_of(request.arrays).items()} if body.epochs else {}
    moment_bits = bits_for(_MOMENT_BOUND * MAXIMUM_PATIENTS)
    weights = [
        Record(
            name=f"{WEIGHT}{name}",
            shape=shape,
            bits=WEIGHT_BITS,
            bound=WEIGHT_BOUND,
            lower=-WEIGHT_BOUND,
            mean=True,
        )
        for name, shape in sorted(shapes.items())
    ]
    first = [
        Record(
            name=f"{FIRST}{name}", shape=shape, bits=moment_bits, bound=_MOMENT_BOUND, lower=-_MOMENT_BOUND, mean=True
        )
        for name, shape in sorted(shapes.items())
    ]
    second = [
        Record(name=f"{SECOND}{name}", shape=shape, bits=moment_bits, bound=_MOMENT_BOUND, mean=True, rounding="up")
        for name, shape in sorted(shapes.items())
    ]
    soft = Record(name="soft", shape=(groups, 4), bits=_LOSS_BITS, bound=_LOSS_BOUND)
    counted = ("patients", "cells_train", "cells_validation", "bounded")
    losses = ("nll_train", "nll_validation")
    records = (*map(_counts, counted), *map(_loss, losses), soft, _counts("hard", groups, 4))

    def of_arrays(arrays: Arrays) -> Arrays:
        return {**arrays, "hard": np.rint(arrays["hard"].astype(np.float64)).astype(np.int64)}

    def to_arrays(arrays: Arrays) -> Arrays:
        models = {
            name: np.asarray(array, dtype=np.float32)
            for name, array in arrays.items()
            if name.startswith((WEIGHT, FIRST, SECOND))
        }
        return {**models, "soft": arrays["soft"], "hard": np.asarray(arrays["hard"], dtype=np.float64)}

    return Form(
        kind=TrainReply.kind,
        purpose=f"train|{body.arm}|{body.round}",
        schema=Schema(records=(*records, *weights, *first, *second), patients=patients),
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
        raise _too_early()
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
        schema=Schema(records=(_counts("validation", groups, 4), _counts("seen", groups, 4))),
        axis={"validation": 0, "seen": 0},
    )


def _audited(request: Envelope, plan: StudyPlan, known: Known | None) -> Form:
    if known is None:
        raise _too_early()
    a, p, k, h = len(APPROACHES), len(plan.audit.predictors), plan.audit.seeds, len(THRESHOLDS)
    g = len(plan.groups.names)
    records = (
        _counts("confusion", a, p, k, h, g, 4),
        _counts("scores", a, p, k, g, 2, SCORE_BINS),
        _counts("synthetic", a, g, 2),
        _counts("code_visits", 3, known.codes),
        _counts("code_totals", 3),
        _counts("alone", 2, g, 2, SCORE_BINS),
    )
    return Form(
        kind=AuditReply.kind,
        purpose="audit",
        schema=Schema(records=records),
        said=("approaches", "predictors", "thresholds", "seeds"),
        axis={"confusion": 4, "scores": 3, "synthetic": 1, "alone": 1},
        to_fields=lambda _, __: {"changes": []},  # what a site's patients say of it stays with the site
    )


def _patients(known: Known | None) -> int:
    if known is None:
        raise _too_early()
    return known.patients


def _too_early() -> ProtocolError:
    return ProtocolError.of("request before agree", where="kind", expected="enrol, then agree")
