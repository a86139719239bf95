"""The masked replies of studies with noise, where they differ from those without: no loss, no count without noise.

In:  a request and what was agreed.   Out: a `Form`.
Never: a number without noise.
"""

from __future__ import annotations

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.federation.masking.form import Form, Known, counts_of, model_records, models_in, patients_of
from fairsynth.federation.masking.records import Record, Schema
from fairsynth.federation.messages import (
    Envelope,
    NoisedAuditReply,
    NoisedTrainReply,
    TrainRequest,
    weights_of,
)
from fairsynth.federation.plans import FAIRSYNTH, counted_rounds
from fairsynth.schemas import Arrays

_FIXED_BOUND = float(1 << 54)  # of fixed-point counts with noise


def noised_trained(request: Envelope, plan: StudyPlan, known: Known | None) -> Form:
    """Weights and moments where there is training; P, S and TP by group in the rounds that are counted."""
    body, groups = TrainRequest.unpack(request), len(plan.groups.names)
    shapes = {name: array.shape for name, array in weights_of(request.arrays).items()} if body.epochs else {}
    counted = body.arm == FAIRSYNTH and body.round in counted_rounds(plan)
    counts = (Record(name="counts", shape=(groups, 3), bound=_FIXED_BOUND, lower=-_FIXED_BOUND),) if counted else ()

    def to_arrays(arrays: Arrays) -> Arrays:
        return {**models_in(arrays), **{one.name: arrays[one.name] for one in counts}}

    return Form(
        kind=NoisedTrainReply.kind,
        purpose=f"train|{body.arm}|{body.round}",
        schema=Schema(records=(counts_of("patients"), *counts, *model_records(shapes)), patients=patients_of(known)),
        said=("arm", "round"),
        axis={one.name: 0 for one in counts},
        of_fields=lambda fields: {"patients": np.array(fields["patients"], dtype=np.int64)},
        to_fields=lambda arrays, _: {"patients": int(arrays["patients"])},
        to_arrays=to_arrays,
        noised=True,
    )


def noised_audited(_: Envelope, __: StudyPlan, ___: Known | None) -> Form:
    """That it was done, and nothing else."""
    return Form(kind=NoisedAuditReply.kind, purpose="audit", schema=Schema(records=()), noised=True)
