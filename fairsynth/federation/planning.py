"""The phase feedback: guides are tried at the sites, and one is chosen by counts that the sites add up.

In:  a conversation with the members, the fairness-optimised generator, the teacher.   Out: `Guide`.
Never: held-out patients; a count of one site alone in a decision; the rule itself (`fairness.planning`).

All trials are of the same sites, because they are compared: when one leaves, the others begin anew.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fairsynth.fairness.planning import Choice, Rule, Trial
from fairsynth.federation.agreement import Members
from fairsynth.federation.conversation import Conversation, with_the_same
from fairsynth.federation.messages import FeedbackRequest, weights_as
from fairsynth.federation.plans import plan_sha256, reference_mask
from fairsynth.federation.taught_replies import fed_back
from fairsynth.federation.terms import Guide
from fairsynth.schemas import Arrays, FloatArray, SiteId


def plan_guide(conversation: Conversation, members: Members, *, weights: Arrays, teacher: FloatArray) -> Guide:
    """The shares of the groups' candidates that are kept, by the plan's first predictor.

    `weights` are the generator's as they travel, `teacher` (F + 1,) those of the phase teach. Raises ProtocolError
    below quorum.
    """
    started, plan = time.monotonic(), conversation.plan
    rule = Rule(
        reference=reference_mask(plan),
        minimum_positives=plan.audit.minimum_positives,
        favourable=plan.objective.favourable,
    )

    def choose(sites: tuple[SiteId, ...]) -> tuple[tuple[SiteId, ...], Choice]:
        trials = _Trials(conversation=conversation, members=members, sites=sites, weights=weights, teacher=teacher)
        return sites, rule.choose(trials.attempt)

    sites, choice = with_the_same(members.sites, choose)
    conversation.journal.append(
        "planned",
        sites=list(sites),
        selected=choice.kept.selected.tolist(),
        tried=[_told(trial, plan.audit.minimum_positives) for trial in choice.tried],
        seconds=round(time.monotonic() - started, 3),
    )
    return Guide(teacher=teacher, selected=choice.kept.selected)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trials:
    """Tries shares at the same sites."""

    conversation: Conversation
    members: Members
    sites: tuple[SiteId, ...]
    weights: Arrays
    teacher: FloatArray
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    def attempt(self, selected: FloatArray) -> Trial:
        """What the sites' predictors do to all real patients with the shares `selected` (G,). Raises SomeLeft."""
        plan, members = self.conversation.plan, self.members
        asked = FeedbackRequest(
            plan_sha256=plan_sha256(plan),
            vocabulary_sha256=members.vocabulary.sha256,
            exclusive=members.exclusive,
            number=next(self.numbers),
        )
        guide = Guide(teacher=self.teacher, selected=selected)
        replies = self.conversation.ask_all(
            self.sites,
            asked.pack({**weights_as(self.weights), **guide.arrays()}),
            phase=f"feedback, shares {', '.join(f'{share:.2f}' for share in selected)}",
            check=lambda site, envelope: fed_back(envelope, plan=plan, site=members.sites[site]),
        )
        return Trial(
            selected=selected,
            validation=np.sum([one.validation for one in replies.values()], axis=0),
            seen=np.sum([one.seen for one in replies.values()], axis=0),
        )


def _told(trial: Trial, minimum_positives: int) -> dict[str, object]:
    """What the journal tells of a trial; counts are pooled over sites."""
    return {
        "selected": trial.selected.tolist(),
        "validation": trial.validation.tolist(),
        "seen": trial.seen.tolist(),
        "f1": trial.f1,
        "worst_tpr": trial.worst_tpr(minimum_positives),
    }
