"""The form of a masked reply: what is masked, what is the same at every site and said openly, what stays at home.

In:  a form, a site's plain reply or the sum of all sites.   Out: the reply taken apart, the sum as a reply.
Never: a number of one site outside the vector; a decision.

The sum of all sites is put together as the reply of one site, `POOLED`, so that the server's door (`validation`) holds
the sum to every rule that it would hold a site to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.errors import ProtocolError
from fairsynth.federation.masking.records import MAXIMUM_PATIENTS, Record, Schema, bits_for
from fairsynth.federation.messages import FIRST, SECOND, WEIGHT, Envelope
from fairsynth.federation.plans import POOLED, plan_sha256
from fairsynth.schemas import Arrays

WEIGHT_BITS, WEIGHT_BOUND = 24, 1 << 10
_MOMENT_BOUND = 2  # of moments of gradients of norm 1 at most
COUNT_BOUND = float(1 << 40)

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
    axis      of groups, by array: where a group is left out, its part of the sum is
    noised    counts have noise, so that they may be below 0
    """

    kind: str
    purpose: str
    schema: Schema
    said: tuple[str, ...] = ()
    axis: Mapping[str, int] = field(default_factory=dict)
    of_fields: Callable[[Fields], Arrays] = lambda _: {}
    to_fields: Callable[[Arrays, int], Fields] = lambda _, __: {}
    of_arrays: Callable[[Arrays], Arrays] = lambda arrays: arrays
    to_arrays: Callable[[Arrays], Arrays] = lambda arrays: arrays
    cut: Callable[[Arrays, Used], Arrays] = lambda arrays, _: arrays  # what `axis` cannot say
    noised: bool = False


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


def counts_of(name: str, *shape: int, noised: bool = False) -> Record:
    """Whole numbers of patients or of what they have."""
    return Record(name=name, shape=shape, bound=COUNT_BOUND, lower=-COUNT_BOUND if noised else 0.0)


def model_records(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Record]:
    """Of weights and the optimiser's moments, each a mean over patients."""
    bits = bits_for(_MOMENT_BOUND * MAXIMUM_PATIENTS)
    named = sorted(shapes.items())
    for name, shape in named:
        yield Record(
            name=f"{WEIGHT}{name}", shape=shape, bits=WEIGHT_BITS, bound=WEIGHT_BOUND, lower=-WEIGHT_BOUND, mean=True
        )
    for name, shape in named:
        yield Record(
            name=f"{FIRST}{name}", shape=shape, bits=bits, bound=_MOMENT_BOUND, lower=-_MOMENT_BOUND, mean=True
        )
    for name, shape in named:
        yield Record(name=f"{SECOND}{name}", shape=shape, bits=bits, bound=_MOMENT_BOUND, mean=True, rounding="up")


def models_in(arrays: Arrays) -> Arrays:
    """The model's arrays of a sum, float32."""
    return {
        name: np.asarray(array, dtype=np.float32)
        for name, array in arrays.items()
        if name.startswith((WEIGHT, FIRST, SECOND))
    }


def patients_of(known: Known | None) -> int:
    """n. Raises ProtocolError before it is known."""
    if known is None:
        raise too_early()
    return known.patients


def too_early() -> ProtocolError:
    """A request that comes before what it needs is agreed."""
    return ProtocolError.of("request before agree", where="kind", expected="enrol, then agree")
