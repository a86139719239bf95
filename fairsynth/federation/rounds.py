"""A study from its first request to its last, at the server.

In:  a transport, a plan.   Out: the server's folder, as `loop` says.
Never: flwr, a patient's record, an unchecked reply.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError, FairSynthError
from fairsynth.federation import logbook
from fairsynth.federation.activity import Activity, Watched
from fairsynth.federation.agreement import check_pooled
from fairsynth.federation.conversation import Conversation, Transport
from fairsynth.federation.desk import Desk, opened
from fairsynth.federation.guard import UNEXPECTED
from fairsynth.federation.journal import Event, Progress
from fairsynth.federation.logbook import Logbook
from fairsynth.federation.loop import Server
from fairsynth.federation.masking.opening import PooledConversation
from fairsynth.federation.masking.roster import read_roster
from fairsynth.federation.noised.rounds import NoisedServer
from fairsynth.federation.plans import plan_sha256

_DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
}

__all__ = ["Transport", "check_pooled", "run_study"]


def run_study(
    transport: Transport,
    *,
    plan: StudyPlan,
    root: Path,
    resume: bool = False,
    attempt: str = "",
    progress: Progress = lambda _: None,
) -> None:
    """Run the study of `plan` with the sites behind `transport`; write everything under `root`.

    With `resume` it goes on from the last committed round under `root`, to the same result as if it had never stopped;
    of a finished study nothing changes. The journal names the start by `attempt`.
    `progress` is called with every journal event. Raises ProtocolError below quorum, CohortError when the pooled
    cohort cannot answer the question, and what `desk.opened` raises. The reason of a failure is the journal's last
    event.
    """
    log = Logbook(root / logbook.SERVER, study=plan_sha256(plan))
    try:
        opening = partial(opened, root, plan=plan, resume=resume, attempt=attempt)
        with _on_disk(root):
            _run(transport, opening, progress=progress, log=log)
    finally:
        log.close()


def _run(
    transport: Transport,
    opening: Callable[..., contextlib.AbstractContextManager[Desk]],
    *,
    progress: Progress,
    log: Logbook,
) -> None:
    watchers: list[Progress] = [progress]

    def tell(event: Event) -> None:
        _log_event(log, event)
        for watcher in watchers:
            watcher(event)

    with opening(progress=tell) as desk, _logged(log):
        if desk.finished:
            desk.close()
            return
        activity = Activity(desk.root, plan=desk.plan, log=log)
        watchers.append(activity)
        try:
            loop = NoisedServer if desk.plan.privacy.noised else Server
            with _on_disk(desk.root):
                loop(conversation=_conversation(Watched(transport, activity), desk), desk=desk).run()
        except FairSynthError as error:
            desk.journal.replay(())
            if not (desk.commits.names() or desk.plan.privacy.masked):
                desk.exchanges.clear()  # before any round: whoever mends the site's tables is asked anew
            with contextlib.suppress(ArtefactError):  # of a full disk: the error itself is told
                desk.journal.append("failed", code=error.code, problems=[asdict(one) for one in error.problems])
            raise


@contextlib.contextmanager
def _on_disk(root: Path) -> Iterator[None]:
    """Raises ArtefactError in place of what a full, broken, closed or removed disk raises."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _DISK:
            raise
        told = error.strerror if isinstance(error, OSError) else "by the writer of arrays"
        raise ArtefactError.of(
            "the server's folder could not be used",
            where=f"{root}: {told}",
            expected="room and permission to write",
            do="mend that, then go on with `fairsynth study ... --resume`: committed rounds are kept",
        ) from None


def _conversation(transport: Transport, desk: Desk) -> Conversation:
    """With every site, or with all as one. Raises ProtocolError without the signed roster of a masked study."""
    plan, journal, exchanges = desk.plan, desk.journal, desk.exchanges
    if not plan.privacy.masked:
        return Conversation(transport=transport, plan=plan, journal=journal, exchanges=exchanges)
    roster = read_roster(desk.root).verified(plan_sha256=plan_sha256(plan), sites=plan.roster)
    return PooledConversation(
        transport=transport, plan=plan, journal=journal, exchanges=exchanges, roster=roster, run=desk.run
    )


_LOGGED = {"resumed": "resumed", "refused": "refused", "round": "committed", "finished": "finished", "failed": "failed"}


def _log_event(log: Logbook, event: Event) -> None:
    """Those of the journal's events that operators look for."""
    if (name := _LOGGED.get(event["event"])) is not None:
        level = {"refused": logging.WARNING, "failed": logging.ERROR}.get(name, logging.INFO)
        log.tell(name, level=level, **{key: value for key, value in event.items() if key != "problems"})


@contextlib.contextmanager
def _logged(log: Logbook) -> Iterator[None]:
    """From start to stop; of a stop that the journal does not tell, type and code."""
    log.tell("started")
    try:
        yield
    except FairSynthError as error:
        log.tell("stopped", level=logging.ERROR, code=error.code, type=type(error).__name__)
        raise
    except BaseException as error:
        log.tell("stopped", level=logging.ERROR, code=UNEXPECTED, type=type(error).__name__)
        raise
    log.tell("stopped")
