"""The server's door for the replies of teach and feedback, as `validation` for the other phases.

In:  a reply, what was asked, what the site said at enrolment.   Out: checked sums and counts, or a ProtocolError with
all problems.
Never: a value of the reply in a problem's text; a repair.

A patient's row is of zeros and ones. So no sum of the gradient exceeds the number of patients, no sum of the Hessian
a quarter of it, and the Hessian has no negative curvature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from fairsynth.config import StudyPlan
from fairsynth.fairness.counts import FN, FP, TN, TP
from fairsynth.federation.checks import are_losses, fits, identity, refuse, rules
from fairsynth.federation.messages import Envelope, FeedbackReply, TeachReply
from fairsynth.federation.newton import Sums, symmetric
from fairsynth.federation.validation import Agreed
from fairsynth.schemas import FloatArray, IntArray

SLACK = 1e-9  # relative, of sums of float64
_CALM = np.errstate(over="ignore", invalid="ignore")  # numbers of a reply may overflow in a rule, which then fails


@dataclass(frozen=True, kw_only=True, eq=False)
class FedBack:
    """A site's counts of one trial: (G, 4) each, TP, FP, FN, TN at 0.5."""

    validation: IntArray
    seen: IntArray


@_CALM
def taught(envelope: Envelope, *, plan: StudyPlan, site: Agreed, asked: FloatArray) -> Sums:
    """A site's answer to a teach request with the weights `asked` (F + 1,). Raises ProtocolError."""
    reply, size = TeachReply.unpack(envelope), len(asked)
    upper = (size * (size + 1) // 2,)
    refuse(
        [
            *identity(reply, site=site.reply.site, plan=plan),
            *fits(envelope.arrays, {"gradient": (np.float64, (size,)), "hessian": (np.float64, upper)}),
        ]
    )
    gradient = envelope.arrays["gradient"].astype(np.float64)
    hessian = symmetric(envelope.arrays["hessian"], size=size)
    patients = site.enrolled.patients * (1 + SLACK)
    bound = (np.log(2) + np.abs(asked).sum()) * (1 + SLACK)  # of one patient's loss
    bounded = bool((np.abs(hessian) <= patients / 4).all())
    refuse(
        rules(
            {
                "loss, validation: finite, from 0": are_losses(reply.loss, reply.validation),
                "loss: at most that of patients with every token": reply.loss <= patients * bound,
                "validation: at most that of patients with every token": reply.validation
                <= site.validation_patients * bound,
                "gradient: at most one a patient": bool((np.abs(gradient) <= patients).all()),
                "hessian: at most a quarter a patient": bounded,
                "hessian: no negative curvature": bounded and _has_no_negative_curvature(hessian),
            }
        )
    )
    return Sums(loss=reply.loss, gradient=gradient, hessian=hessian, validation=reply.validation)


@_CALM
def fed_back(envelope: Envelope, *, plan: StudyPlan, site: Agreed) -> FedBack:
    """A site's answer to a feedback request. Raises ProtocolError."""
    reply, shape = FeedbackReply.unpack(envelope), (len(plan.groups.names), 4)
    refuse(
        [
            *identity(reply, site=site.reply.site, plan=plan),
            *fits(envelope.arrays, {"validation": (np.int64, shape), "seen": (np.int64, shape)}),
        ]
    )
    validation, seen = (envelope.arrays[name].astype(np.int64) for name in ("validation", "seen"))
    refuse(
        rules(
            {
                "validation, seen: counts from 0": bool((validation >= 0).all() and (seen >= 0).all()),
                "validation: the validation patients": _are_of(validation, site.cohort[1]),
                "seen: the training and validation patients": _are_of(seen, site.cohort[0] + site.cohort[1]),
                "seen: at least those of validation": bool((validation <= seen).all()),
            }
        )
    )
    return FedBack(validation=validation, seen=seen)


def _are_of(confusion: IntArray, cells: IntArray) -> bool:
    """Whether counts (G, 4) are of as many patients of each group and label as `cells` (G, 2)."""
    found = np.stack([confusion[:, FP] + confusion[:, TN], confusion[:, TP] + confusion[:, FN]], axis=1)
    return np.array_equal(found, cells)


def _has_no_negative_curvature(hessian: FloatArray) -> bool:
    """Whether the symmetric matrix is positive semidefinite, up to rounding."""
    room = len(hessian) * SLACK * (1 + float(np.trace(hessian)))
    try:
        linalg.cholesky(hessian + room * np.eye(len(hessian)))
    except linalg.LinAlgError:
        return False
    return True
