"""A study from its first request to its last, at the server.

In:  a transport, a plan.   Out: the server's folder, as `loop` says.
Never: flwr, a patient's record, an unchecked reply.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.errors import FairSynthError
from fairsynth.federation.agreement import check_pooled
from fairsynth.federation.conversation import Conversation, Transport
from fairsynth.federation.journal import Journal, Progress
from fairsynth.federation.loop import Server
from fairsynth.federation.masking.opening import PooledConversation
from fairsynth.federation.masking.roster import read_roster
from fairsynth.federation.noised.rounds import NoisedServer
from fairsynth.federation.plans import plan_sha256

__all__ = ["Transport", "check_pooled", "run_study"]


def run_study(transport: Transport, *, plan: StudyPlan, root: Path, progress: Progress = lambda _: None) -> None:
    """Run the study of `plan` with the sites behind `transport`; write everything under `root`.

    `progress` is called with every journal event. Raises ProtocolError below quorum, CohortError when the pooled
    cohort cannot answer the question. The reason of a failure is the journal's last event.
    """
    artefacts.write_text(root / "plan.json", plan.model_dump_json(by_alias=True, indent=2) + "\n")
    journal = Journal(root, progress=progress)
    try:
        conversation = _conversation(transport, plan=plan, root=root, journal=journal)
        loop = NoisedServer if plan.privacy.noised else Server
        loop(conversation=conversation, plan=plan, root=root, journal=journal).run()
    except FairSynthError as error:
        journal.append("failed", code=error.code, problems=[asdict(problem) for problem in error.problems])
        raise


def _conversation(transport: Transport, *, plan: StudyPlan, root: Path, journal: Journal) -> Conversation:
    """With every site, or with all as one. Raises ProtocolError without the signed roster of a masked study."""
    if not plan.privacy.masked:
        return Conversation(transport=transport, plan=plan, journal=journal)
    roster = read_roster(root).verified(plan_sha256=plan_sha256(plan), sites=plan.roster)
    return PooledConversation(transport=transport, plan=plan, journal=journal, roster=roster)
