"""Ask sites, wait no longer than agreed, check what comes, go on only with a quorum, and keep what was accepted.

In:  a `Transport`, requests, a check for one reply.   Out: the checked replies by site, sorted.
Never: an unchecked reply; a wait without end; text that a site wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fairsynth.config import StudyPlan
from fairsynth.errors import FairSynthError, Problem, ProtocolError
from fairsynth.federation.exchanges import Exchanges
from fairsynth.federation.journal import Journal
from fairsynth.federation.masking.keys import Announcement
from fairsynth.federation.messages import Envelope, Failed, TrainRequest
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

    def ask(self, requests: Mapping[SiteId, Envelope], *, timeout: float) -> Mapping[SiteId, Envelope]:
        """Send each site its request and wait at most `timeout` seconds; a site without a usable reply is absent."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a site has no part in a phase."""

    site: SiteId
    code: str
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons = {
            MISSING: "no reply in time",
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
        """The checked replies, sorted by site; refused ones are journalled.

        Raises ProtocolError, naming the sites and their codes, when fewer than a quorum remain.
        """
        kind = next(iter(requests.values())).kind
        timeout = float(self.plan.training.round_deadline_seconds * PATIENCE[kind])
        kept = self.recall(requests)
        replies = self.transport.ask(requests, timeout=timeout) if kept is None else kept
        accepted: dict[SiteId, Checked] = {}
        refusals: list[Refusal] = []
        for site in sorted(requests):
            try:
                accepted[site] = check(site, answer_of(site, replies))
            except Refused as refused:
                refusals.append(refused.refusal)
            except FairSynthError as error:
                problems = tuple(str(problem) for problem in error.problems)
                refusals.append(Refusal(site=site, code=REFUSED, problems=problems))
        for refusal in refusals:
            self.journal.append(
                "refused", phase=phase, site=refusal.site, code=refusal.code, problems=list(refusal.problems)
            )
        earlier = [Refusal(site=site, code=EARLIER) for site in self.plan.roster if site not in requests]
        self._require_quorum(accepted, [*refusals, *earlier], phase=phase)
        if kept is None:
            self.remember(requests, replies, phase=phase)
        return accepted

    def recall(self, requests: Mapping[SiteId, Envelope]) -> dict[SiteId, Envelope] | None:
        """The replies that this exchange had before the server started again; None where it had none.

        Rounds of training are committed by themselves.
        """
        return None if _trains(requests) else self.exchanges.recall(requests)

    def remember(self, requests: Mapping[SiteId, Envelope], replies: Mapping[SiteId, Envelope], *, phase: str) -> None:
        """Keep an exchange that was accepted."""
        if not _trains(requests):
            self.exchanges.keep(requests, replies, phase=phase, position=self.journal.position)

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


class Refused(Exception):
    """Carries a refusal out of a check."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.code)


def answer_of(site: SiteId, replies: Mapping[SiteId, Envelope]) -> Envelope:
    """The site's reply, unless it is missing or says that the site failed."""
    envelope = replies.get(site)
    if envelope is None:
        raise Refused(Refusal(site=site, code=MISSING))
    if envelope.kind == Failed.kind:
        code = Failed.unpack(envelope).code
        raise Refused(Refusal(site=site, code=code if re.fullmatch(r"FS-\d{3}", code) else REFUSED))
    return envelope
