"""The server's side of a masked study: one exchange with all sites, one sum, one reply.

In:  a transport, the signed roster, requests.   Out: replies of `POOLED`, checked by the same door as a site's.
Never: a sum of fewer than all sites; a part of a sum whose label did not come to an end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fairsynth.errors import CohortError, Problem, ProtocolError
from fairsynth.federation.checks import fits, identity, refuse, rules
from fairsynth.federation.conversation import MISSING, REFUSED, Conversation, Refusal
from fairsynth.federation.masking.form import Form, Known, put_together, without
from fairsynth.federation.masking.forms import CONTRIBUTING, form_of
from fairsynth.federation.masking.keys import Announcement, check_announcements
from fairsynth.federation.masking.masks import Label, Masked, Total, vector_sha256
from fairsynth.federation.masking.roster import Roster
from fairsynth.federation.masking.sealing import VECTOR, label_of, reply_text
from fairsynth.federation.messages import (
    AgreeReply,
    AgreeRequest,
    EnrolReply,
    Envelope,
    JoinReply,
    JoinRequest,
    PooledAgreeReply,
    PooledEnrolReply,
    SealedReply,
)
from fairsynth.federation.noised.releases import releases_of
from fairsynth.federation.plans import POOLED, reference_mask
from fairsynth.governance.identity import verify
from fairsynth.schemas import Arrays, Group, SiteId

OUTSTANDING = 10  # deviations of the noise on a group's size
ATTEMPTS = 2  # with the same request: a site that was away sends what it kept

Checked = Any
Said = dict[str, Any]  # the fields of a reply that are the same at every site


@dataclass(kw_only=True)
class Settled:
    """What the exchange has fixed so far."""

    used: npt.NDArray[np.bool_] | None = None  # (G,) groups that enough patients and sites have
    known: Known | None = None  # of the agree request


@dataclass(frozen=True, kw_only=True)
class PooledConversation(Conversation):
    """Speaks with all sites of the roster, and answers as if they were one."""

    roster: Roster
    run: str  # 64 random digits
    settled: Settled = field(default_factory=Settled, repr=False)

    @property
    def sites(self) -> tuple[SiteId, ...]:
        """The one that the sum is of."""
        return (POOLED,)

    @property
    def left_out(self) -> tuple[Group, ...]:
        """Groups that too few patients or sites have; known once the sites are enrolled."""
        names = self.plan.groups.names
        return tuple(name for name, used in zip(names, self._used, strict=True) if not used)

    def meet(self) -> tuple[Announcement, ...]:
        """The keys of all sites for this run. Raises ProtocolError unless every site announces a valid one."""
        request = JoinRequest(plan=self.plan, run=self.run, epoch=self.roster.epoch).pack()
        keys = self._gather(request, phase="join", check=self._announcement)
        announced = tuple(keys[site] for site in self.roster.sites)
        check_announcements(announced, roster=self.roster, run=self.run)
        self.journal.append("joined", sites=list(self.roster.sites), epoch=self.roster.epoch, run=self.run)
        return announced

    def ask(
        self, requests: Mapping[SiteId, Envelope], *, phase: str, check: Callable[[SiteId, Envelope], Checked]
    ) -> dict[SiteId, Checked]:
        """The checked reply of `POOLED`. Raises ProtocolError unless every site answers and the sum passes its door."""
        (request,) = requests.values()
        form = form_of(request, plan=self.plan, known=self.settled.known)
        label = label_of(form, run=self.run, epoch=self.roster.epoch)
        total = Total()

        def folded(site: SiteId, envelope: Envelope) -> Said:
            said, vector = self._sealed(site, envelope, form=form, label=label)
            total.add(vector)
            return said

        said = self._gather(request, phase=phase, check=folded)
        if request.kind == AgreeRequest.kind:
            body = AgreeRequest.unpack(request)
            self.settled.known = Known(patients=body.patients, codes=len(body.codes))
        try:
            return {POOLED: check(POOLED, self._opened(form, said, total))}
        except ProtocolError as error:
            self.journal.append(
                "refused", phase=phase, site=POOLED, code=REFUSED, problems=[str(one) for one in error.problems]
            )
            raise

    def _gather(
        self, request: Envelope, *, phase: str, check: Callable[[SiteId, Envelope], Checked]
    ) -> dict[SiteId, Checked]:
        """The checked replies of all sites; who did not answer is asked the same again."""
        accepted: dict[SiteId, Checked] = {}
        everyone = dict.fromkeys(self.roster.sites, request)
        with self.replies(everyone) as (replies, keeping):
            refusals = self.judge(replies, everyone, check=check, accepted=accepted)
            for _ in range(ATTEMPTS - 1):
                if not any(refusal.code == MISSING for refusal in refusals.values()):
                    break
                waiting = dict.fromkeys(refusals, request)
                again = self.judge(self.asked(waiting, keeping), waiting, check=check, accepted=accepted)
                # who was refused and says nothing more stays refused, for that reason
                refusals = {site: refusals[site] if one.code == MISSING else one for site, one in again.items()}
            if refusals:
                raise self._incomplete(refusals, phase=phase)
            if keeping is not None:
                keeping.accept(phase=phase, position=self.journal.position)
        return accepted

    def _incomplete(self, refusals: Mapping[SiteId, Refusal], *, phase: str) -> ProtocolError:
        for refusal in refusals.values():
            self.journal_refusal(refusal, phase=phase)
        number = len(self.roster.sites)
        return ProtocolError(
            Problem(
                what=f"{number - len(refusals)} of {number} sites",
                where=f"{phase}; {refusal}",
                expected="all sites: a masked sum is of all or of none",
                do="mend the site and start the study again; if it is gone for good, the others sign a new roster",
            )
            for refusal in refusals.values()
        )

    def _announcement(self, site: SiteId, envelope: Envelope) -> Announcement:
        reply = JoinReply.unpack(envelope)
        refuse(
            [
                *identity(reply, site=site, plan=self.plan),
                *fits(envelope.arrays, {}),
                *rules({"key: the site's own": reply.key.site == site}),
            ]
        )
        return reply.key

    def _sealed(self, site: SiteId, envelope: Envelope, *, form: Form, label: Label) -> tuple[Said, Masked]:
        """What a site says openly, and its masked vector (L,).

        Raises ProtocolError unless the reply is this site's, signed, under this label, and as long as agreed.
        """
        reply = SealedReply.unpack(envelope)
        refuse(
            [
                *identity(reply, site=site, plan=self.plan),
                *fits(envelope.arrays, {VECTOR: (np.uint64, (label.length,))}),
                *rules(
                    {
                        "of: the kind that was asked": reply.of == form.kind,
                        "run, epoch, purpose, schema_sha256: the label": (
                            reply.run,
                            reply.epoch,
                            reply.purpose,
                            reply.schema_sha256,
                        )
                        == (label.run, label.epoch, label.purpose, label.schema_sha256),
                        "said: the fields that are not masked": set(reply.said) == set(form.said),
                    }
                ),
            ]
        )
        vector = np.asarray(envelope.arrays[VECTOR], dtype=np.uint64)
        text = reply_text(label, site=site, said=reply.said, vector=vector_sha256(vector))
        signed = verify(self.roster.key_of(site), text, bytes.fromhex(reply.signature))
        refuse(rules({"signature: the site's own": signed}))
        return reply.said, vector

    def _opened(self, form: Form, said: Mapping[SiteId, Said], total: Total) -> Envelope:
        """The reply of `POOLED`. Raises ProtocolError when sites say different things openly."""
        first = said[self.roster.sites[0]]
        if any(one != first for one in said.values()):
            raise ProtocolError.of("sites that say different things", where=form.kind, expected=f"equal {form.said}")
        arrays = form.schema.arrays(total.opened())
        if form.kind == EnrolReply.kind:
            self.settled.used = self._judged(arrays)
        kept = without(arrays, form, used=self._used)
        pooled = put_together(form, first, kept, plan=self.plan, sites=len(self.roster.sites))
        left = {name: arrays[name].astype(np.int64) - kept[name].astype(np.int64) for name in form.axis}
        possible = form.noised or all((part >= 0).all() for part in left.values())
        refuse(rules({"counts of groups that are left out: from 0": possible}))
        if form.kind == EnrolReply.kind:
            unused = left["members"].sum(axis=0).tolist()
            return PooledEnrolReply(**EnrolReply.unpack(pooled).model_dump(), unused=unused).pack(pooled.arrays)
        if form.kind == AgreeReply.kind:
            unused = left["cohort"].sum(axis=(1, 2)).tolist()
            return PooledAgreeReply(**AgreeReply.unpack(pooled).model_dump(), unused=unused).pack(pooled.arrays)
        return pooled

    @property
    def _used(self) -> npt.NDArray[np.bool_]:
        """(G,) groups that enough patients and sites have."""
        used = self.settled.used
        return np.ones(len(self.plan.groups.names), dtype=np.bool_) if used is None else used

    @property
    def _rule(self) -> tuple[int, int]:
        """The least patients of a group that is used, and the least sites: under noise, patients that stand out of it.

        A number with noise below `OUTSTANDING` deviations would make rates of it that say nothing (docs/masking.md).
        """
        privacy = self.plan.privacy
        if not privacy.noised:
            return privacy.minimum_group, privacy.minimum_contributing
        deviation = releases_of(self.plan).cells_deviation(sites=len(self.roster.sites)) * 2**0.5  # of two cells
        return max(privacy.minimum_group, math.ceil(OUTSTANDING * deviation)), 1

    def _judged(self, arrays: Arrays) -> npt.NDArray[np.bool_]:
        """(G,) which groups are used. Raises CohortError unless there is one to compare with and one to compare."""
        members = arrays["members"].astype(np.int64).sum(axis=1)
        least, sites = self._rule
        used: npt.NDArray[np.bool_] = members >= least
        if CONTRIBUTING in arrays:
            used &= arrays[CONTRIBUTING].astype(np.int64) >= sites
        reference = reference_mask(self.plan)
        names = np.array(self.plan.groups.names)
        self.journal.append("groups", used=names[used].tolist(), left_out=names[~used].tolist())
        if not (used & reference).any() or not (used & ~reference).any():
            raise CohortError.of(
                "too few groups to compare",
                where="groups.names, training patients of all sites",
                expected=f"a reference group and another, each with {least} patients or more at {sites} sites or more",
                do="find sites that share groups, or join small groups; docs/masking.md says what the rule is for",
            )
        return used
