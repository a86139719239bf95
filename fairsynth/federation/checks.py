"""What every check of a reply is made of: rules that hold or not, arrays that fit or not.

In:  a reply's fields and arrays, what they should be.   Out: problems.
Never: a value of the reply in a problem's text; a repair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.errors import Problem, ProtocolError
from fairsynth.federation.messages import SiteReply
from fairsynth.federation.plans import POOLED, plan_sha256
from fairsynth.federation.wire import widen
from fairsynth.schemas import Arrays, FloatArray, IntArray, SiteId

MAXIMUM_COUNT = 1 << 40  # of any one count: sums over a site and over 2^10 sites stay exact in int64 and float64

_SLACK = 1e-5  # relative, of sums of float32 probabilities

Spec = Mapping[str, tuple[type[np.generic], tuple[int, ...]]]  # array name -> dtype, shape


def identity(reply: SiteReply, *, site: SiteId, plan: StudyPlan) -> list[Problem]:
    """The reply must be of this site, of the roster (or of all of it, in masked studies), and of this study."""
    of_roster = reply.site in plan.roster or (plan.privacy.masked and reply.site == POOLED)
    return rules(
        {
            "site: of the roster": of_roster,
            "site: the one that was asked": reply.site == site,
            "plan_sha256: the study's": reply.plan_sha256 == plan_sha256(plan),
        }
    )


def fits(arrays: Arrays, spec: Spec) -> Iterator[Problem]:
    """The problems of names, dtypes, shapes and values that are not numbers."""
    if missing := sorted(set(spec) - set(arrays)):
        yield Problem(what="array missing", where=missing[0], expected=f"{len(spec)} arrays")
    if extra := len(set(arrays) - set(spec)):
        yield Problem(what="unknown arrays", where=f"{extra} of them", expected=f"{len(spec)} arrays")
    for name in sorted(set(spec) & set(arrays)):
        dtype, shape = spec[name]
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            yield Problem(what="array of another shape or dtype", where=name, expected=f"{dtype.__name__} {shape}")
        elif not np.isfinite(widen(array) if dtype == np.uint16 else array.astype(np.float64)).all():
            yield Problem(what="array with a value that is not a finite number", where=name)


def rules(held: Mapping[str, bool | np.bool_], *, what: str = "reply breaks a rule") -> list[Problem]:
    """A problem `what` for every rule, `key: what is expected`, that does not hold."""
    broken = [rule.partition(": ") for rule, holds in held.items() if not holds]
    return [Problem(what=what, where=key, expected=expected) for key, _, expected in broken]


def refuse(problems: list[Problem]) -> None:
    """Raise ProtocolError when there are any."""
    if problems:
        raise ProtocolError(problems)


def are_counts(array: IntArray) -> bool:
    """Whether all are from 0 to `MAXIMUM_COUNT`."""
    return bool(((array >= 0) & (array <= MAXIMUM_COUNT)).all())


def are_losses(*values: float) -> bool:
    """Whether all are finite numbers from 0."""
    return all(np.isfinite(value) and value >= 0 for value in values)


def are_names(names: Iterable[str], *, longest: int) -> bool:
    """Whether each is of 1 to `longest` printable characters: no control codes, no line ends."""
    return all(0 < len(name) <= longest and name.isprintable() for name in names)


def rules_of_counts(
    name: str, counts: FloatArray, *, cells: int, members: IntArray, plan: StudyPlan
) -> dict[str, bool | np.bool_]:
    """0 <= TP <= P and TP <= S, N as enrolled, and P and S within what they count (visits x codes, or patients).

    `counts` (G, 4) are N_g, P_g, S_g and TP_g; `members` (G, 2) the training patients by label; `cells` visits x codes.
    """
    number, positives, predicted, true_positives = counts.T
    slack = 1 + _SLACK
    held: dict[str, bool | np.bool_] = {
        f"{name}: counts from 0": bool((counts >= 0).all()),
        f"{name}: N as enrolled": np.array_equal(number, members.sum(axis=1)),
        f"{name}: P whole numbers": np.array_equal(positives, np.rint(positives)),
        f"{name}: TP at most P": bool((true_positives <= positives * slack).all()),
        f"{name}: TP at most S": bool((true_positives <= predicted * slack).all()),
    }
    if plan.objective.target == "label":
        held[f"{name}: P as enrolled"] = np.array_equal(positives, members[:, 1])
        held[f"{name}: S at most N"] = bool((predicted <= number * slack).all())
    else:
        held[f"{name}: P at most visits x codes"] = bool(positives.sum() <= cells)
        held[f"{name}: S at most visits x codes"] = bool(predicted.sum() <= cells * slack)
    return held
