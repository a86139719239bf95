"""Who takes part, and what they share: enrol -> agree -> the weights that both arms start from.

In:  a conversation with the sites of the roster.   Out: `Members`, and `enrolment.json` in the server's folder.
Never: a code of fewer patients than the plan allows; training.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.errors import CohortError, ConfigError, Problem
from fairsynth.federation.aggregate import pool
from fairsynth.federation.conversation import Conversation
from fairsynth.federation.messages import MAXIMUM_BYTES, AgreeRequest, EnrolRequest
from fairsynth.federation.plans import ARMS, plan_sha256
from fairsynth.federation.validation import Agreed, Door, Enrolled
from fairsynth.federation.wire import DTYPES
from fairsynth.generator.model import expected_shapes, initial_weights
from fairsynth.generator.priming import Shown, primed_weights
from fairsynth.schemas import Arrays, Group, IntArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.cohort import shared_vocabulary
from fairsynth.visits.layout import Vocabulary

_MODELS = 3  # in a message of training: weights, first and second moments
_MASKED_BYTES = 8  # of a number in a masked sum


@dataclass(frozen=True, kw_only=True)
class Members:
    """The sites that take part, and what they share."""

    sites: Mapping[SiteId, Agreed]
    vocabulary: Vocabulary

    @cached_property
    def shown(self) -> Shown | None:
        """What the training patients of all sites show, added up; None unless the study begins primed."""
        parts = [self.sites[site].shown for site in sorted(self.sites)]
        known = [part for part in parts if part is not None]
        return sum(known[1:], start=known[0]) if known else None

    @property
    def exclusive(self) -> tuple[int, ...]:
        """The numbers of the runs of codes of which no visit of any site has two; none unless primed."""
        return () if self.shown is None else tuple(int(run) for run in (self.shown.shared == 0).nonzero()[0])

    def first_weights(self, plan: StudyPlan) -> Arrays:
        """What both arms start from."""
        seed = stream(plan.seed, "initial-weights")
        if self.shown is None:
            return initial_weights(self.vocabulary, plan.generator, seed=seed)
        return primed_weights(self.shown, vocabulary=self.vocabulary, config=plan.generator, seed=seed)


def enrol(conversation: Conversation, *, door: Door) -> dict[SiteId, Enrolled]:
    """Every site of the roster proposes codes and tells its training cells; the pooled cells are checked."""
    plan = conversation.plan
    request = EnrolRequest(plan=plan, keys=conversation.meet()).pack()
    enrolled = conversation.ask(
        dict.fromkeys(conversation.sites, request),
        phase="enrol",
        check=lambda site, envelope: door.enrolled(envelope, site=site),
    )
    check_pooled(plan, {site: one.members for site, one in enrolled.items()}, left_out=conversation.left_out)
    conversation.journal.append(
        "enrolled",
        sites={
            site: {"patients": one.patients, "visits": one.reply.visits, "codes": len(one.reply.codes)}
            for site, one in enrolled.items()
        },
    )
    return enrolled


def agree(conversation: Conversation, enrolled: dict[SiteId, Enrolled], *, door: Door, root: Path) -> Members:
    """The sites encode their cohorts with one vocabulary; when one drops out, the others are asked again."""
    plan = conversation.plan
    while True:
        vocabulary = shared_vocabulary(_pooled_codes(plan, enrolled), plan=plan)
        patients = sum(one.patients for one in enrolled.values())
        visits = sum(one.reply.visits for one in enrolled.values())
        request = AgreeRequest(
            plan_sha256=plan_sha256(plan),
            codes=vocabulary.codes,
            patients=patients,
            visits=min(max(visits, patients), patients * plan.generator.maximum_visits),  # noise may have moved it out
        ).pack({"members": np.maximum(pool({site: one.members for site, one in enrolled.items()}), 0)})
        agreed = conversation.ask(
            dict.fromkeys(enrolled, request),
            phase="agree",
            check=lambda site, envelope, now=enrolled, words=vocabulary: door.agreed(  # type: ignore[misc]
                envelope, enrolled=now[site], vocabulary=words
            ),
        )
        if len(agreed) == len(enrolled):
            break
        enrolled = {site: enrolled[site] for site in agreed}
        check_pooled(plan, {site: one.members for site, one in enrolled.items()}, left_out=conversation.left_out)
    check_size(plan, vocabulary)
    members = Members(sites=agreed, vocabulary=vocabulary)
    artefacts.write_json(root / "enrolment.json", _enrolment(members, left_out=conversation.left_out))
    conversation.journal.append("agreed", sites=list(agreed), codes=len(vocabulary.codes), vocabulary=vocabulary.sha256)
    return members


def check_pooled(plan: StudyPlan, cells: Mapping[SiteId, IntArray], *, left_out: Collection[Group] = ()) -> None:
    """Every group of the plan but those left out needs a training patient somewhere, and the task needs positives.

    `cells` are each site's training patients by (group, label), (G, 2). Raises CohortError with all problems.
    """
    members = pool(dict(cells))
    problems = [
        Problem(
            what="a group with nobody in it",
            where=f"groups.names -> {group}, training patients of {', '.join(cells)}",
            expected="at least one patient at one site",
            do="remove the group from the study file, or map raw strings to it in the sites' groups.yaml",
        )
        for group, number in zip(plan.groups.names, members.sum(axis=1), strict=True)
        if number == 0 and group not in left_out
    ]
    if not members[:, 1].any():
        problems.append(
            Problem(
                what="a task without positives",
                where=f"task.name -> {plan.task.name}, training patients of {', '.join(cells)}",
                expected="at least one patient with the label",
                do="choose another task, or widen the sites' cohort filters",
            )
        )
    if problems:
        raise CohortError(problems)


def check_size(plan: StudyPlan, vocabulary: Vocabulary) -> None:
    """Raise ConfigError when the generator is too large for a message: before training, not in its first round."""
    numbers = sum(math.prod(shape) for shape in expected_shapes(vocabulary, plan.generator).values())
    sealed = _MASKED_BYTES if plan.privacy.masked else np.dtype(DTYPES[plan.training.wire]).itemsize
    largest = max(_MODELS * numbers * sealed, len(ARMS) * numbers * np.dtype(np.float32).itemsize)
    if largest > MAXIMUM_BYTES:
        raise ConfigError.of(
            f"a generator of {numbers:,} weights, whose largest message has {largest:,} bytes",
            where="generator; vocabulary.maximum_codes",
            expected=f"messages of at most {MAXIMUM_BYTES:,} bytes",
            do="choose a smaller generator, or, in a plain study, training.wire: bfloat16",
        )


def _pooled_codes(plan: StudyPlan, enrolled: Mapping[SiteId, Enrolled]) -> list[str]:
    """The union of the proposed codes; above `maximum_codes`, those of most patients, ties by name."""
    patients: dict[str, int] = {}
    for one in enrolled.values():
        for code, number in one.reply.codes.items():
            patients[code] = patients.get(code, 0) + number
    ranked = sorted(patients, key=lambda code: (-patients[code], code))
    return sorted(ranked[: plan.vocabulary.maximum_codes])


def _enrolment(members: Members, *, left_out: Collection[Group]) -> dict[str, object]:
    return {
        "left_out": list(left_out),
        "sites": {
            site: {
                "data_sha256": one.enrolled.reply.data_sha256,
                "flow": one.enrolled.reply.flow,
                "codes": len(one.enrolled.reply.codes),
                "visits": one.enrolled.reply.visits,
                "mapped_share": one.reply.mapped_share,
                "cohort": np.maximum(one.cohort, 0).tolist(),  # below 0 by noise alone
            }
            for site, one in members.sites.items()
        },
        "vocabulary_sha256": members.vocabulary.sha256,
        "codes": list(members.vocabulary.codes),
    }
