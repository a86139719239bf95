"""The server's door of a study with noise: the sums of all sites are checked before they touch anything.

In:  the reply of `POOLED`, what was asked.   Out: the checked reply, or a ProtocolError with all of its problems.
Never: a rule that honest noise breaks; a value of the reply in a problem's text.

Counts with noise may be below 0, above what they are counts of, and contradict each other; what holds of exact counts
(`validation`) doesn't hold of them. Weights are held to the same bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fairsynth.federation.checks import MAXIMUM_COUNT, are_names, fits, identity, refuse, rules
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    Envelope,
    NoisedAuditReply,
    NoisedTrainReply,
    PooledAgreeReply,
    PooledEnrolReply,
    TrainRequest,
    weights_of,
)
from fairsynth.federation.plans import FAIRSYNTH, counted_rounds
from fairsynth.federation.validation import MAXIMUM_CODES, Agreed, Door, Enrolled, is_sha256
from fairsynth.generator.train import Moments
from fairsynth.governance.noise import from_fixed
from fairsynth.schemas import Arrays, FloatArray, IntArray, SiteId
from fairsynth.visits.layout import Vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class NoisedTrained:
    """A checked training reply of all sites. `counts` (G, 3) are P, S and TP with noise, where they were released."""

    patients: int
    weights: Arrays
    moments: Moments | None
    counts: FloatArray | None
    moved: Mapping[str, float]  # how far, in units of `norms`


@dataclass(frozen=True, kw_only=True)
class NoisedDoor(Door):
    """Checks the sums of one study with noise. Every method raises ProtocolError with all problems of the reply."""

    def enrolled(self, envelope: Envelope, *, site: SiteId) -> Enrolled:
        """The sites' answer to the enrol request."""
        reply = PooledEnrolReply.unpack(envelope)
        refuse(
            [
                *identity(reply, site=site, plan=self.plan),
                *fits(envelope.arrays, {"members": (np.int64, (self.groups, 2))}),
            ]
        )
        members = envelope.arrays["members"].astype(np.int64)
        enrolled = Enrolled(reply=reply, members=members)
        refuse(
            rules(
                {
                    "members: numbers up to 2^40": _are_counts(members),
                    "members: at least one patient": enrolled.patients >= 1,
                    "codes: at least one": len(reply.codes) > 0,
                    "codes: at most 100,000": len(reply.codes) <= MAXIMUM_CODES,
                    "codes: names of 1 to 200 printable characters": are_names(reply.codes, longest=200),
                    "codes: carried by at least `minimum_patients`": all(
                        self.plan.vocabulary.minimum_patients <= count <= MAXIMUM_COUNT
                        for count in reply.codes.values()
                    ),
                    "flow: none": not reply.flow,
                    "data_sha256: 64 hexadecimal digits": is_sha256(reply.data_sha256),
                }
            )
        )
        return enrolled

    def agreed(self, envelope: Envelope, *, enrolled: Enrolled, vocabulary: Vocabulary) -> Agreed:
        """The sites' answer to the agree request."""
        reply = PooledAgreeReply.unpack(envelope)
        refuse(
            [
                *identity(reply, site=enrolled.reply.site, plan=self.plan),
                *fits(envelope.arrays, {"cohort": (np.int64, (3, self.groups, 2))}),
            ]
        )
        cohort = envelope.arrays["cohort"].astype(np.int64)
        refuse(
            rules(
                {
                    "vocabulary_sha256: the study's": reply.vocabulary_sha256 == vocabulary.sha256,
                    "mapped_share: not told": reply.mapped_share is None,
                    "cohort: numbers up to 2^40": _are_counts(cohort),
                    "cohort: training patients as enrolled": np.array_equal(cohort[0], enrolled.members)
                    and reply.unused[0] == sum(enrolled.unused),
                }
            )
        )
        return Agreed(enrolled=enrolled, reply=reply, cohort=cohort)

    def noised(self, envelope: Envelope, *, asked: TrainRequest, sent: Arrays, site: Agreed) -> NoisedTrained:
        """The sites' answer to a train request; `sent` are the weights that they were given."""
        reply, groups = NoisedTrainReply.unpack(envelope), self.groups
        counted = asked.arm == FAIRSYNTH and asked.round in counted_rounds(self.plan)
        refuse(
            [
                *identity(reply, site=site.reply.site, plan=self.plan),
                *fits(
                    envelope.arrays,
                    {
                        **({"counts": (np.int64, (groups, 3))} if counted else {}),
                        **{
                            f"{prefix}{name}": (np.float32, array.shape)
                            for prefix in (WEIGHT, FIRST, SECOND)
                            for name, array in sent.items()
                            if asked.epochs
                        },
                    },
                ),
            ]
        )
        weights, first, second = (weights_of(envelope.arrays, prefix) for prefix in (WEIGHT, FIRST, SECOND))
        moments = Moments(first=first, second=second) if asked.epochs else None
        problems = rules(
            {
                "arm and round: as asked": (reply.arm, reply.round) == (asked.arm, asked.round),
                "patients: as enrolled": reply.patients == site.enrolled.patients,
            }
        )
        moved = self.moved(weights, asked=asked, sent=sent, site=site)
        if moments is not None:
            problems += self.update(weights, moments, moved, asked=asked, sent=sent, site=site)
        refuse(problems)
        counts = from_fixed(envelope.arrays["counts"].astype(np.int64)) if counted else None
        return NoisedTrained(patients=reply.patients, weights=weights, moments=moments, counts=counts, moved=moved)

    def stayed(self, envelope: Envelope, *, site: Agreed) -> NoisedAuditReply:
        """The sites' answer to the audit request: that each has its own results."""
        reply = NoisedAuditReply.unpack(envelope)
        refuse([*identity(reply, site=site.reply.site, plan=self.plan), *fits(envelope.arrays, {})])
        return reply


def _are_counts(values: IntArray) -> bool:
    return bool((np.abs(values) <= MAXIMUM_COUNT).all())
