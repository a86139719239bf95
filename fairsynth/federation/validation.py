"""The server's door: every reply is checked before it can touch an aggregate.

In:  a reply, what was asked, what the site said at enrolment.   Out: the checked reply, or a ProtocolError with all of
its problems.
Never: a value of the reply in a problem's text; a repair.

What the checks can and cannot do: they catch damage and plain poison (NaN, huge or negative numbers, weights farther
than training can come, counts that contradict each other or the enrolment). A site that lies within these bounds is
not caught; what it can do to the average is bounded (docs/validation.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from fairsynth.config import StudyPlan
from fairsynth.errors import Problem
from fairsynth.federation.bounds import Reach, are_moments, reach
from fairsynth.federation.checks import (
    MAXIMUM_COUNT,
    are_counts,
    are_losses,
    are_names,
    fits,
    identity,
    refuse,
    rules,
    rules_of_counts,
)
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    AgreeReply,
    AuditReply,
    EnrolReply,
    Envelope,
    PooledAgreeReply,
    PooledEnrolReply,
    TrainReply,
    TrainRequest,
    weights_as,
)
from fairsynth.federation.norms import Norms, units
from fairsynth.federation.plans import APPROACHES, PLAIN, POOLED, SCORE_BINS, THRESHOLDS
from fairsynth.federation.told_changes import rules_of_changes, rules_of_means
from fairsynth.federation.wire import DTYPES, answer_prefix, answered, incoming
from fairsynth.generator.base_rates import BIAS
from fairsynth.generator.priming import Shown, runs
from fairsynth.generator.train import Moments
from fairsynth.schemas import Arrays, FloatArray, IntArray, SiteId
from fairsynth.visits.layout import TokenLayout, Vocabulary

MAXIMUM_CODES = 100_000  # that a site may propose
MAXIMUM_STEPS = 64  # of a cohort flow
MAXIMUM_NATS = 1000.0  # of one token: log-odds of so much are no model's
_CALM = np.errstate(over="ignore", invalid="ignore")  # numbers of a reply may overflow in a rule, which then fails


@dataclass(frozen=True, kw_only=True, eq=False)
class Enrolled:
    """What a site said of its training patients: what later replies are held to."""

    reply: EnrolReply
    members: IntArray  # (G, 2) by group and label

    @property
    def unused(self) -> tuple[int, ...]:
        """By label, patients of groups that are left out; of all sites together alone there are such."""
        return self.reply.unused if isinstance(self.reply, PooledEnrolReply) else (0, 0)

    @property
    def patients(self) -> int:
        """n_i; of all sites together, patients of groups that are left out are among them."""
        return sum(map(int, self.members.ravel())) + sum(self.unused)  # of any numbers: int64 would wrap

    @property
    def positives(self) -> int:
        """P_i, likewise."""
        return int(self.members[:, 1].sum()) + self.unused[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreed:
    """A site with its cohort encoded."""

    enrolled: Enrolled
    reply: AgreeReply
    cohort: IntArray  # (3, G, 2) by split, group and label
    shown: Shown | None = None  # by its training patients, where the plan's training is primed

    @property
    def validation_patients(self) -> int:
        """Of all groups, those left out among them."""
        return int(self.cohort[1].sum()) + self.unused[1]

    @property
    def unused(self) -> tuple[int, ...]:
        """By split, patients of groups that are left out."""
        return self.reply.unused if isinstance(self.reply, PooledAgreeReply) else (0, 0, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedReply:
    """A checked training reply."""

    reply: TrainReply
    weights: Arrays  # empty when no epoch was asked for
    moments: Moments | None  # None when no epoch was asked for
    soft: FloatArray  # (G, 4) N_g, P_g, S_g, TP_g
    hard: FloatArray  # (G, 4)
    moved: Mapping[str, float] = field(default_factory=dict)  # how far, in units of `norms`

    def arrays(self) -> Arrays:
        """Weights and moments, by the names of messages."""
        first, second = (self.moments.first, self.moments.second) if self.moments else ({}, {})
        return weights_as(self.weights) | weights_as(first, FIRST) | weights_as(second, SECOND)

    def without_model(self) -> Self:
        """The rest of the reply: a few kilobytes."""
        return replace(self, weights={}, moments=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditedReply:
    """A checked audit reply."""

    reply: AuditReply
    arrays: Arrays


@dataclass(frozen=True, kw_only=True)
class Door:
    """Checks the replies of one study. Every method raises ProtocolError with all problems of the reply.

    `norms` are how far the updates of earlier rounds went; without it each update is judged by itself.
    """

    plan: StudyPlan
    norms: Norms | None = None

    @property
    def groups(self) -> int:
        """G."""
        return len(self.plan.groups.names)

    @_CALM
    def enrolled(self, envelope: Envelope, *, site: SiteId) -> Enrolled:
        """A site's answer to the enrol request."""
        reply = (PooledEnrolReply if site == POOLED else EnrolReply).unpack(envelope)
        problems = [
            *identity(reply, site=site, plan=self.plan),
            *fits(envelope.arrays, {"members": (np.int64, (self.groups, 2))}),
        ]
        refuse(problems)
        members = envelope.arrays["members"].astype(np.int64)
        enrolled = Enrolled(reply=reply, members=members)
        problems += rules(
            {
                "members: counts from 0 to 2^40": are_counts(members),
                "members: at least one patient": bool(members.any()),
                "visits: at least one a patient": reply.visits >= enrolled.patients,
                "visits: at most `maximum_visits` a patient": reply.visits
                <= enrolled.patients * self.plan.generator.maximum_visits,
                "codes: at least one": len(reply.codes) > 0,
                "codes: at most 100,000": len(reply.codes) <= MAXIMUM_CODES,
                "codes: names of 1 to 200 printable characters": are_names(reply.codes, longest=200),
                "flow: at most 64 steps, named in 1 to 200 printable characters": len(reply.flow) <= MAXIMUM_STEPS
                and are_names(reply.flow, longest=200),
                "flow: counts up to 2^40": all(left <= MAXIMUM_COUNT for left in reply.flow.values()),
                "codes: carried by at least `minimum_patients`, at most all patients": all(
                    self.plan.vocabulary.minimum_patients <= count <= enrolled.patients
                    for count in reply.codes.values()
                ),
                "data_sha256: 64 hexadecimal digits": is_sha256(reply.data_sha256),
            }
        )
        refuse(problems)
        return enrolled

    @_CALM
    def agreed(self, envelope: Envelope, *, enrolled: Enrolled, vocabulary: Vocabulary) -> Agreed:
        """A site's answer to the agree request."""
        kind, primed = PooledAgreeReply if enrolled.reply.site == POOLED else AgreeReply, self.plan.training.primed
        reply = kind.unpack(envelope)
        spec: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {"cohort": (np.int64, (3, self.groups, 2))}
        if primed:
            spec |= {"occurs": (np.int64, (vocabulary.layout.size,)), "shared": (np.int64, (len(runs(vocabulary)),))}
        problems = [
            *identity(reply, site=enrolled.reply.site, plan=self.plan),
            *fits(envelope.arrays, spec),
        ]
        refuse(problems)
        cohort = envelope.arrays["cohort"].astype(np.int64)
        shown = _shown(envelope.arrays, enrolled) if primed else None
        problems += rules(
            {
                "vocabulary_sha256: the study's": reply.vocabulary_sha256 == vocabulary.sha256,
                "mapped_share: from 0 to 1": reply.mapped_share is not None and 0 <= reply.mapped_share <= 1,
                "cohort: counts from 0 to 2^40": are_counts(cohort),
                "cohort: training patients as enrolled": np.array_equal(cohort[0], enrolled.members)
                and (not isinstance(reply, PooledAgreeReply) or reply.unused[0] == sum(enrolled.unused)),
                **(_rules_of_shown(shown, enrolled=enrolled, layout=vocabulary.layout) if shown else {}),
            }
        )
        refuse(problems)
        return Agreed(enrolled=enrolled, reply=reply, cohort=cohort, shown=shown)

    @_CALM
    def trained(
        self, envelope: Envelope, *, asked: TrainRequest, sent: Arrays, site: Agreed, codes: int
    ) -> TrainedReply:
        """A site's answer to a train request; `sent` are the weights that it was given, `codes` is C."""
        reply = TrainReply.unpack(envelope)
        counts, wire = (np.float64, (self.groups, 4)), self.plan.training.wire
        expected = {
            f"{prefix}{name}": (DTYPES[wire], array.shape)
            for prefix in (answer_prefix(wire), FIRST, SECOND)
            for name, array in sent.items()
            if asked.epochs
        }
        problems = [
            *identity(reply, site=site.reply.site, plan=self.plan),
            *fits(envelope.arrays, {"soft": counts, "hard": counts, **expected}),
        ]
        refuse(problems)
        soft, hard = (envelope.arrays[name].astype(np.float64) for name in ("soft", "hard"))
        weights = answered(envelope.arrays, sent=sent, wire=wire)
        first, second = (incoming(envelope.arrays, prefix, wire=wire) for prefix in (FIRST, SECOND))
        moments = Moments(first=first, second=second)
        validation, nats = site.validation_patients, MAXIMUM_NATS * sent[BIAS].size
        problems += rules(
            {
                "arm and round: as asked": (reply.arm, reply.round) == (asked.arm, asked.round),
                "patients: as enrolled": reply.patients == site.enrolled.patients,
                "nll_train, nll_validation: finite, from 0": are_losses(reply.nll_train, reply.nll_validation),
                "nll_train: at most 1000 nats a token": reply.nll_train <= reply.cells_train * nats,
                "nll_validation: at most 1000 nats a token": reply.nll_validation <= reply.cells_validation * nats,
                "cells_train: one or more a patient, at most as enrolled": site.enrolled.patients
                <= reply.cells_train
                <= site.enrolled.patients + site.enrolled.reply.visits,
                "cells_validation: two to `maximum_visits` + 1 a patient": 2 * validation
                <= reply.cells_validation
                <= validation * (self.plan.generator.maximum_visits + 1),
                "bounded: in the fairsynth arm, where it trains": not reply.bounded
                or (asked.arm != PLAIN and asked.epochs > 0),
                "soft and hard: the same N and P": np.array_equal(soft[:, :2], hard[:, :2]),
                "hard: whole numbers": np.array_equal(hard, np.rint(hard)),
            }
        )
        moved = self.moved(weights, asked=asked, sent=sent, site=site)
        if asked.epochs:
            problems += self.update(weights, moments, moved, asked=asked, sent=sent, site=site)
        for name, values in (("soft", soft), ("hard", hard)):
            problems += rules(
                rules_of_counts(
                    name, values, cells=reply.cells_train * codes, members=site.enrolled.members, plan=self.plan
                )
            )
        refuse(problems)
        kept = moments if asked.epochs else None
        return TrainedReply(reply=reply, weights=weights, moments=kept, soft=soft, hard=hard, moved=moved)

    @_CALM
    def audited(self, envelope: Envelope, *, site: Agreed, codes: int) -> AuditedReply:
        """A site's answer to the audit request."""
        reply = AuditReply.unpack(envelope)
        a, p, k, h = len(APPROACHES), len(self.plan.audit.predictors), self.plan.audit.seeds, len(THRESHOLDS)
        g = self.groups
        shapes = {
            "confusion": (a, p, k, h, g, 4),
            "scores": (a, p, k, g, 2, SCORE_BINS),
            "synthetic": (a, g, 2),
            "code_visits": (3, codes),
            "code_totals": (3,),
            "alone": (2, g, 2, SCORE_BINS),
        }
        problems = [
            *identity(reply, site=site.reply.site, plan=self.plan),
            *rules(
                {
                    "axes: as planned": (reply.approaches, reply.predictors, reply.thresholds, reply.seeds)
                    == (APPROACHES, self.plan.audit.predictors, THRESHOLDS, self.plan.audit.seeds),
                    **self._of_changes(reply),
                }
            ),
            *fits(envelope.arrays, {name: (np.int64, shape) for name, shape in shapes.items()}),
        ]
        refuse(problems)
        arrays: dict[str, IntArray] = {name: envelope.arrays[name].astype(np.int64) for name in shapes}
        confusion, held_out = arrays["confusion"], site.cohort[2]
        judged = int(held_out.sum()) + site.unused[2]
        positives, negatives = confusion[..., 0] + confusion[..., 2], confusion[..., 1] + confusion[..., 3]
        problems += rules(
            {
                "arrays: counts from 0 to 2^40": all(map(are_counts, arrays.values())),
                "confusion: the positives of the held-out patients": bool((positives == held_out[:, 1]).all()),
                "confusion: the negatives of the held-out patients": bool((negatives == held_out[:, 0]).all()),
                "scores: the held-out patients": bool((arrays["scores"].sum(axis=-1) == held_out).all()),
                "alone: the held-out patients": bool((arrays["alone"].sum(axis=-1) == held_out).all()),
                "synthetic: none beside real patients alone": not arrays["synthetic"][
                    APPROACHES.index("real_only")
                ].any(),
                "code_totals: training visits as enrolled": int(arrays["code_totals"][0]) == site.enrolled.reply.visits,
                "code_totals: one to `maximum_visits` a held-out patient": judged
                <= arrays["code_totals"][1]
                <= judged * self.plan.generator.maximum_visits,
                "code_visits: at most all visits": bool(
                    (arrays["code_visits"] <= arrays["code_totals"][:, None]).all()
                ),
                **({} if reply.site == POOLED else rules_of_means(reply.changes, confusion, plan=self.plan)),
            }
        )
        refuse(problems)
        return AuditedReply(reply=reply, arrays=dict(arrays))

    def _of_changes(self, reply: AuditReply) -> dict[str, bool]:
        """What changed at a site stays there in masked studies."""
        if reply.site == POOLED:
            return {"changes: of no site": not reply.changes}
        return rules_of_changes(reply.changes, plan=self.plan)

    def reach(self, asked: TrainRequest, site: Agreed) -> Reach:
        """How far the site's weights can come in the round asked for."""
        return reach(
            self.plan,
            round_number=asked.round,
            epochs=asked.epochs,
            patients=site.enrolled.patients,
            visits=site.enrolled.reply.visits,
        )

    def moved(self, weights: Arrays, *, asked: TrainRequest, sent: Arrays, site: Agreed) -> dict[str, float]:
        """How far an update went, in units of `norms`; nothing where nobody trains."""
        return units(sent, weights, limit=self.reach(asked, site)) if asked.epochs else {}

    def update(
        self,
        weights: Arrays,
        moments: Moments,
        moved: Mapping[str, float],
        *,
        asked: TrainRequest,
        sent: Arrays,
        site: Agreed,
    ) -> list[Problem]:
        """Weights that training can have come to from those `sent`, and moments that it can have left."""
        limit = self.reach(asked, site)
        norms = self.norms or Norms()
        return rules(
            {
                **{f"{name}: within what training can move": False for name in limit.exceeded(sent, weights)},
                **{f"{name}: a norm like that of other updates": False for name in norms.exceeded(moved)},
                "weights: moved by training": any(
                    not np.array_equal(weights[name], sent[name]) for name in sent if name != BIAS
                ),
                "weights: not all zero": any(weights[name].any() for name in weights),
                **are_moments(moments.first, moments.second),
            }
        )


def _shown(arrays: Arrays, enrolled: Enrolled) -> Shown:
    return Shown(
        occurs=arrays["occurs"].astype(np.int64),
        shared=arrays["shared"].astype(np.int64),
        visits=enrolled.reply.visits,
        patients=enrolled.patients,
    )


def _rules_of_shown(shown: Shown, *, enrolled: Enrolled, layout: TokenLayout) -> dict[str, bool]:
    """Codes within the visits, context tokens within the patients, groups and label as enrolled."""
    occurs = shown.occurs
    return {
        "occurs, shared: counts from 0 to 2^40": are_counts(occurs) and are_counts(shown.shared),
        "occurs: codes in at most the enrolled visits": bool((occurs[layout.codes] <= shown.visits).all()),
        "occurs: context tokens of at most the enrolled patients": bool(
            (occurs[layout.context] <= shown.patients).all()
        ),
        "occurs: groups as enrolled": _are_members(occurs[layout.groups], enrolled),
        "occurs: labels as enrolled": int(occurs[layout.label]) == enrolled.positives,
        "occurs: one sex and one age band a patient at most": all(
            int(occurs[block].sum()) <= shown.patients for block in (layout.sexes, layout.ages)
        ),
        "occurs: no start, no end": not occurs[layout.context.stop :].any(),
        "shared: at most the enrolled visits": bool((shown.shared <= shown.visits).all()),
    }


def _are_members(groups: IntArray, enrolled: Enrolled) -> bool:
    """Whether (G,) patients are those enrolled."""
    members = enrolled.members.sum(axis=1)
    return np.array_equal(groups, members)


def is_sha256(text: str) -> bool:
    """Whether the text is 64 hexadecimal digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
