"""Ask sites, wait no longer than agreed, check what comes, go on only with a quorum, and keep what was accepted.

In:  a `Transport`, requests, a check for one reply.   Out: what the check made of each reply, by site, sorted.
Never: an unchecked reply; a wait without end; text that a site wrote; two replies in memory where one will do.

Each reply is checked when it comes, and let go. What a check returns is kept until all are there, so it is small; what
of a reply is large goes to a `Spool`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fairsynth.config import StudyPlan
from fairsynth.errors import FairSynthError, Problem, ProtocolError
from fairsynth.federation.exchanges import Exchanges, Keeping
from fairsynth.federation.journal import Journal
from fairsynth.federation.masking.keys import Announcement
from fairsynth.federation.messages import Envelope, Failed, TrainRequest
from fairsynth.federation.spool import Spool
from fairsynth.schemas import Group, SiteId

MISSING = "FS-301"  # no reply within the deadline, or the site is not connected
REFUSED = "FS-302"  # a reply came and was refused at the door
EARLIER = "FS-303"  # left out in an earlier phase, whose journal line says why
# deadlines that a request may take: reading tables takes longer, and so does generating and fitting
PATIENCE = {"join": 1, "enrol": 4, "agree": 2, "train": 1, "teach": 1, "feedback": 4, "audit": 4}

Checked = TypeVar("Checked")
Result = TypeVar("Result")


class Transport(Protocol):
    """Carries messages between the server and the sites."""

    def ask(self, requests: Mapping[SiteId, Envelope], *, timeout: float) -> Iterator[tuple[SiteId, Envelope]]:
        """Send each site its request and yield the replies as they come, for at most `timeout` seconds.

        A site without a usable reply is absent. Nothing is sent before the first reply is asked for.
        """


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a site has no part in a phase."""

    site: SiteId
    code: str
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons = {
            MISSING: "no reply in time (if its SuperNode is online, restart that)",
            REFUSED: f"reply refused, {'; '.join(self.problems[:3])}",
            EARLIER: "left out in an earlier phase",
        }
        return f"{self.site}: {self.code} {reasons.get(self.code, 'the site could not do it; its own log says why')}"


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One study's exchange with its sites."""

    transport: Transport
    plan: StudyPlan
    journal: Journal
    exchanges: Exchanges

    @property
    def sites(self) -> tuple[SiteId, ...]:
        """Whom the first request goes to."""
        return self.plan.roster

    @property
    def left_out(self) -> tuple[Group, ...]:
        """Groups whose counts are not used; none where every site's are known."""
        return ()

    def meet(self) -> tuple[Announcement, ...]:
        """The sites' keys for this run; none where nothing is masked."""
        return ()

    def ask(
        self,
        requests: Mapping[SiteId, Envelope],
        *,
        phase: str,
        check: Callable[[SiteId, Envelope], Checked],
    ) -> dict[SiteId, Checked]:
        """What `check` makes of each reply, sorted by site; refused ones are journalled.

        Raises ProtocolError, naming the sites and their codes, when fewer than a quorum remain.
        """
        accepted: dict[SiteId, Checked] = {}
        with self.replies(requests) as (replies, keeping):
            refusals = self.judge(replies, requests, check=check, accepted=accepted)
            for refusal in refusals.values():
                self.journal_refusal(refusal, phase=phase)
            earlier = [Refusal(site=site, code=EARLIER) for site in self.plan.roster if site not in requests]
            self._require_quorum(accepted, [*refusals.values(), *earlier], phase=phase)
            if keeping is not None:
                keeping.accept(phase=phase, position=self.journal.position)
        return {site: accepted[site] for site in sorted(accepted)}

    def spool(self) -> Spool:
        """Room for what is large in the replies of one request."""
        return Spool(self.journal.path.parent)

    @contextlib.contextmanager
    def replies(
        self, requests: Mapping[SiteId, Envelope]
    ) -> Iterator[tuple[Iterator[tuple[SiteId, Envelope]], Keeping | None]]:
        """The replies as they come, and what keeps them once they are accepted; those kept before, and None, where the
        server started again.

        Rounds of training are committed by themselves.
        """
        if _trains(requests):
            yield self.asked(requests), None
        elif (kept := self.exchanges.recall(requests)) is not None:
            yield kept, None
        else:
            with self.exchanges.keeping(requests) as keeping:
                yield self.asked(requests, keeping), keeping

    def asked(
        self, requests: Mapping[SiteId, Envelope], keeping: Keeping | None = None
    ) -> Iterator[tuple[SiteId, Envelope]]:
        """The first reply of each site that was asked, as it comes within the deadline."""
        kind = next(iter(requests.values())).kind
        timeout = float(self.plan.training.round_deadline_seconds * PATIENCE[kind])
        waiting = set(requests)
        for site, envelope in self.transport.ask(requests, timeout=timeout):
            if site in waiting:
                waiting.remove(site)
                if keeping is not None:
                    keeping.add(site, envelope)
                yield site, envelope
            del envelope

    @staticmethod
    def judge(
        replies: Iterator[tuple[SiteId, Envelope]],
        asked: Iterable[SiteId],
        *,
        check: Callable[[SiteId, Envelope], Checked],
        accepted: dict[SiteId, Checked],
    ) -> dict[SiteId, Refusal]:
        """Add to `accepted` what `check` makes of each reply as it comes; why other sites have none, sorted."""
        refusals = {site: Refusal(site=site, code=MISSING) for site in sorted(asked)}
        for site, envelope in replies:
            found = judged(site, envelope, check)
            if isinstance(found, Refusal):
                refusals[site] = found
            else:
                accepted[site] = found
                del refusals[site]
            del envelope, found
        return refusals

    def journal_refusal(self, refusal: Refusal, *, phase: str) -> None:
        """Tell of a site that has no part in a phase."""
        self.journal.append(
            "refused", phase=phase, site=refusal.site, code=refusal.code, problems=list(refusal.problems)
        )

    def ask_all(
        self, sites: Iterable[SiteId], request: Envelope, *, phase: str, check: Callable[[SiteId, Envelope], Checked]
    ) -> dict[SiteId, Checked]:
        """As `ask`, one request to all of these `sites`; raises SomeLeft unless each has a checked reply."""
        requests = dict.fromkeys(sites, request)
        replies = self.ask(requests, phase=phase, check=check)
        if len(replies) < len(requests):
            raise SomeLeft(replies)
        return replies

    def _require_quorum(self, accepted: Iterable[SiteId], refusals: list[Refusal], *, phase: str) -> None:
        present = list(accepted)
        if gone := [site for site in self.plan.required if site not in present]:
            reasons = "; ".join(str(refusal) for refusal in refusals if refusal.site in gone)
            raise ProtocolError.of(
                f"no study without {', '.join(gone)}",
                where=f"{phase}; {reasons}",
                expected=f"all required sites: {', '.join(self.plan.required)}",
                do="mend the site, or take it out of `required` in the study file: that is another study",
            )
        if len(present) < self.plan.quorum:
            raise ProtocolError(
                Problem(
                    what=f"{len(present)} of {len(self.plan.roster)} sites",
                    where=f"{phase}; {refusal}",
                    expected=f"a quorum of {self.plan.quorum}",
                    do="mend the site, or lower `quorum` in the study file if the study may go on without it",
                )
                for refusal in refusals
            )


def _trains(requests: Mapping[SiteId, Envelope]) -> bool:
    return next(iter(requests.values())).kind == TrainRequest.kind


class SomeLeft(Exception):
    """Some sites of an exchange that needs the same ones throughout did not answer; the others did."""

    def __init__(self, stayed: Iterable[SiteId]) -> None:
        self.stayed = tuple(stayed)
        super().__init__(f"{len(self.stayed)} sites stayed")


def with_the_same(sites: Iterable[SiteId], work: Callable[[tuple[SiteId, ...]], Result]) -> Result:
    """What `work` gives that asks the same sites again and again; it begins anew whenever some leave."""
    stayed = tuple(sites)
    while True:
        try:
            return work(stayed)
        except SomeLeft as left:
            stayed = left.stayed


def judged(site: SiteId, envelope: Envelope, check: Callable[[SiteId, Envelope], Checked]) -> Checked | Refusal:
    """What `check` makes of a site's reply, or why it is refused: the site says that it failed, or the door."""
    try:
        if envelope.kind == Failed.kind:
            code = Failed.unpack(envelope).code
            return Refusal(site=site, code=code if re.fullmatch(r"FS-\d{3}", code) else REFUSED)
        return check(site, envelope)
    except FairSynthError as error:
        return Refusal(site=site, code=REFUSED, problems=tuple(str(problem) for problem in error.problems))
