"""The phase teach: a logistic regression of all sites' patients, to rank the generator's candidates.

In:  a conversation with the members.   Out: `Taught`: its weights, and the strength that validation patients chose.
Never: a patient; the loss of one site alone in a decision; an approximation of the pooled optimum.

A request carries weights, a reply the sums there (`newton`), and the server takes Newton's step: the same sites answer
every request, for sums over other sites would be of another objective. When one leaves, the others begin anew. The
strengths of the penalty are tried from the weakest to the strongest, each from the optimum of the one before; the one
whose optimum has the lowest log loss on all sites' validation patients is kept.
"""

from __future__ import annotations

import operator
import time
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_limits

from fairsynth.errors import CohortError, ProtocolError
from fairsynth.federation.agreement import Members
from fairsynth.federation.conversation import Conversation, with_the_same
from fairsynth.federation.messages import Envelope, TeachRequest
from fairsynth.federation.newton import STRENGTHS, Optimum, Sums, minimise
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.taught_replies import taught
from fairsynth.federation.terms import columns
from fairsynth.schemas import FloatArray, SiteId

MAXIMUM_REQUESTS = 100  # some 25 do; a site whose sums are of no patients could ask for any number


@dataclass(frozen=True, kw_only=True, eq=False)
class Taught:
    """The sites' common knowledge of who has the outcome."""

    weights: FloatArray  # (F + 1,) on the bag of tokens, then the bias
    inverse_strength: float  # that validation chose


def teach(conversation: Conversation, members: Members) -> Taught:
    """Train the teacher. Raises ProtocolError below quorum, CohortError unless there are patients of both labels."""
    started = time.monotonic()
    conversation.journal.append("teaching", sites=list(members.sites))
    everyone = np.sum([one.enrolled.members for one in members.sites.values()], axis=(0, 1))
    if not everyone.all():
        raise CohortError.of("patients of one label only", where="teach", expected="both labels among all sites")
    with threadpool_limits(limits=conversation.plan.training.threads):  # a solution depends on it in its last bits
        school, found = with_the_same(members.sites, lambda sites: _taught_by(conversation, members, sites))
    losses = {strength: optimum.sums.validation for strength, optimum in found.items()}
    best = min(losses, key=lambda strength: (losses[strength], strength))
    conversation.journal.append(
        "taught",
        sites=list(school.sites),
        inverse_strength=best,
        validation={str(strength): loss for strength, loss in losses.items()},
        requests=school.requests,
        seconds=round(time.monotonic() - started, 3),
    )
    return Taught(weights=found[best].weights, inverse_strength=best)


def _taught_by(
    conversation: Conversation, members: Members, sites: tuple[SiteId, ...]
) -> tuple[_School, dict[float, Optimum]]:
    """The optimum of each strength, of these sites' patients."""
    school = _School(conversation=conversation, members=members, sites=sites)
    weights = np.zeros(columns(members.vocabulary) + 1)
    found: dict[float, Optimum] = {}
    for strength in STRENGTHS:
        try:
            found[strength] = minimise(school.total, start=weights, inverse_strength=strength)
        except linalg.LinAlgError:
            raise ProtocolError.of(
                "sums of no logistic regression", where="teach", expected="positive curvature"
            ) from None
        weights = found[strength].weights
    return school, found


@dataclass(eq=False, kw_only=True)
class _School:
    """Asks the same sites for their sums, once at each place."""

    conversation: Conversation
    members: Members
    sites: tuple[SiteId, ...]
    requests: int = 0
    _last: tuple[FloatArray, Sums] | None = field(default=None, repr=False)

    def total(self, weights: FloatArray) -> Sums:
        """The sums of all sites at `weights` (F + 1,), folded sorted by site. Raises SomeLeft when one is missing."""
        if self._last is None or not np.array_equal(self._last[0], weights):
            self._last = weights, self._asked(weights)
        return self._last[1]

    def _asked(self, weights: FloatArray) -> Sums:
        plan, members = self.conversation.plan, self.members
        self.requests += 1
        asked = TeachRequest(
            plan_sha256=plan_sha256(plan), vocabulary_sha256=members.vocabulary.sha256, number=self.requests
        )
        if self.requests > MAXIMUM_REQUESTS:
            raise ProtocolError.of("no optimum found", where="teach", expected=f"at most {MAXIMUM_REQUESTS} requests")

        def spooled(site: SiteId, envelope: Envelope) -> Sums:
            one = taught(envelope, plan=plan, site=members.sites[site], asked=weights)
            spool.put(site, {"hessian": one.hessian})
            return replace(one, hessian=np.empty(0))

        with self.conversation.spool() as spool:
            replies = self.conversation.ask_all(
                self.sites, asked.pack({"weights": weights}), phase=f"teach, request {self.requests}", check=spooled
            )
            return reduce(
                operator.add,
                (
                    replace(replies[site], hessian=np.asarray(spool.get(site, "hessian"), dtype=np.float64))
                    for site in sorted(replies)
                ),
            )
