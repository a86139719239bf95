"""The site's boundary: a request is answered only in an approved study, and every answer goes through `release`.

In:  a request, the work that answers it, the site's folder.   Out: an envelope that may be sent.
Never: an answer that is not in the site's ledger, except a bare code from a site that cannot keep one.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.errors import FairSynthError, PolicyRefusal, faults
from fairsynth.federation.guard import guarded
from fairsynth.federation.messages import EnrolRequest, Envelope, Failed, JoinRequest, SealedReply
from fairsynth.federation.noised.household import limit_of
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.site_folder import read_site_folder
from fairsynth.governance import approval, ledger
from fairsynth.governance.approval import Approved, Place
from fairsynth.governance.budget import NAME as BUDGET
from fairsynth.governance.budget import Budget
from fairsynth.governance.egress import Outgoing, release
from fairsynth.governance.identity import Identity, ensure_identity, load_identity
from fairsynth.governance.ledger import Ledger
from fairsynth.governance.policy import SitePolicy, read_policy
from fairsynth.governance.restored import check_not_before, check_not_told
from fairsynth.provisioning.connection import CONNECTION
from fairsynth.provisioning.permissions import check_modes
from fairsynth.schemas import SiteId

UNKNOWN = SiteId("unknown")  # a site that cannot keep a ledger does not say its name

Work = Callable[[Path, Envelope], Envelope]

SLACK = 1e-6  # of an epsilon: sums of differences round
MASKED = "masked"  # the name, and the first part of names, of arrays that are masked


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What decides at one site about one request."""

    place: Place
    policy: SitePolicy
    identity: Identity
    study: str
    label: str
    approved: Approved | None  # None: only a refusal may leave

    def leave(self, envelope: Envelope) -> Envelope:
        """`envelope`, once it is checked and in the ledger. Raises PolicyRefusal."""
        kind = policy_kind(envelope)
        now = _now()
        with ledger.opened(self.place.root, identity=self.identity) as book:
            outgoing = self._outgoing(envelope, kind=kind, epsilon=self._epsilon(envelope, book, now=now))
            release(outgoing, policy=self.policy, ledger=book, approval=self.approved, now=now)
        return envelope

    def _outgoing(self, envelope: Envelope, *, kind: str, epsilon: float | None) -> Outgoing:
        return Outgoing(
            kind=kind,
            text=envelope.fields,
            arrays=envelope.arrays,
            site=self.place.site,
            study=self.study,
            label=f"{kind}/{label_of(envelope, asked=self.label)}",
            cohort=events_sha256(self.place.root) if self.approved else "",
            masked=frozenset(name for name in envelope.arrays if is_masked(name)),
            epsilon=epsilon,
        )

    def _epsilon(self, envelope: Envelope, book: Ledger, *, now: datetime.datetime) -> float | None:
        """The privacy loss that this message adds: what the site's budget was charged since the last one.

        None where the study has no noise. Raises PolicyRefusal where the budget knows of less than the ledger.
        """
        if self.approved is None or not self.approved.plan.privacy.noised or envelope.kind == Failed.kind:
            return None
        told = sum(entry.epsilon or 0.0 for entry in book.entries(now=now))
        charged = Budget(self.place.root, limit=limit_of(self.policy)).told() if has_budget(self.place.root) else 0.0
        if charged < told - SLACK:
            raise PolicyRefusal.of(
                "the privacy budget knows of less than the ledger",
                where=f"{BUDGET}, {ledger.NAME}",
                expected="every charge since the site joined",
                do="fairsynth restore (docs/operations.md): nothing leaves until then",
            )
        return max(charged - told, 0.0)


def answer(folder: Callable[[], Path], request: Callable[[], Envelope], work: Work, *, phase: str) -> Envelope:
    """What leaves the site in answer to a request: the reply of `work`, or `Failed` with a code.

    `folder` and `request` may raise. No patient is looked at before the study is known to be approved.
    """

    def reply(root: Path) -> Envelope:
        asked = request()
        gate = admit(root, asked)
        return gate.leave(work(root, asked))

    envelope = guarded(folder, reply, phase=phase)
    return _refusal(folder, request, envelope) if envelope.kind == Failed.kind else envelope


def admit(root: Path, request: Envelope) -> Gate:
    """The gate of an approved study. Raises PolicyRefusal when the study, the plan or the cohort is not approved."""
    gate, study = _gate(root, request), named_study(request)
    approved = approval.check_approved(gate.place, study, policy=gate.policy, identity=gate.identity)
    with ledger.opened(root, identity=gate.identity) as book:
        path = approval.path_of(root, study)
        entries = book.entries(now=_now())
    since = approval.since_approved(entries, approved, where=path)
    check_not_before(entries, approved.plan, study=study, where=path)
    if request.kind not in (JoinRequest.kind, EnrolRequest.kind):  # enrolment makes the events anew, as its reply tells
        approval.check_cohort(since, events_sha256(root), where=path)
    return Gate(
        place=gate.place,
        policy=gate.policy,
        identity=gate.identity,
        study=study,
        label=gate.label,
        approved=approved,
    )


def place_of(root: Path) -> Place:
    """Where the site at `root` has what. Raises ArtefactError."""
    here = read_site_folder(root)
    return Place(root=root, site=here.site, config=here.config, data=here.data)


def approve(root: Path, plan: StudyPlan, *, officer: str) -> Path:
    """Approve the study at the site, whose key is made where there is none yet. Raises PolicyRefusal, ConfigError."""
    place = place_of(root)
    read_policy(place.config)  # a site without a policy gets no key either
    if plan.privacy.noised:
        check_not_told(ledger.read(root), study=plan_sha256(plan), where=approval.path_of(root, plan_sha256(plan)))
    return approval.approve(place, plan, identity=ensure_identity(root), officer=officer, now=_now())


def named_study(request: Envelope) -> str:
    """The hash of the plan that a request names, or brings; empty where it does neither."""
    if request.kind == EnrolRequest.kind:
        return plan_sha256(EnrolRequest.unpack(request).plan)
    if request.kind == JoinRequest.kind:
        return plan_sha256(JoinRequest.unpack(request).plan)
    study = _fields(request).get("plan_sha256")
    return study if isinstance(study, str) else ""


def policy_kind(envelope: Envelope) -> str:
    """The name under which a policy speaks of a message: of a masked reply, `sealed_` and what is masked."""
    of = _fields(envelope).get("of") if envelope.kind == SealedReply.kind else None
    return f"{SealedReply.kind}_{of}" if isinstance(of, str) else envelope.kind


def label_of(envelope: Envelope, *, asked: str) -> str:
    """Which message this is: of a masked reply, what its mask is for, so that the ledger too knows of one alone."""
    if envelope.kind != SealedReply.kind:
        return asked
    fields = _fields(envelope)
    return "/".join(str(fields.get(name)) for name in ("run", "epoch", "purpose"))


def has_budget(root: Path) -> bool:
    """Whether the site has begun a privacy budget."""
    return (root / BUDGET).exists()


def is_masked(name: str) -> bool:
    """Whether an array of this name is masked: `masked`, or `masked/<record>`."""
    return name == MASKED or name.startswith(f"{MASKED}/")


def events_sha256(root: Path) -> str:
    """Hash of the site's events, as enrolment gives it; empty before there are any."""
    folder = root / "events"
    return str(artefacts.read_manifest(folder, kind="events")["content"]) if folder.is_dir() else ""


def _refusal(folder: Callable[[], Path], request: Callable[[], Envelope], failed: Envelope) -> Envelope:
    """`failed`, released; where the site has no policy, key or sound ledger: the code alone, of a site without a name.

    That one message is the same at every site, so it says nothing but that it failed.
    """
    try:
        root = folder()
        return _gate(root, _readable(request)).leave(failed)
    except faults():  # whatever it is, its text must not leave the site
        return Failed(site=UNKNOWN, code=Failed.unpack(failed).code).pack()


def _gate(root: Path, request: Envelope) -> Gate:
    """The gate before approval is looked at: it lets refusals through."""
    place = place_of(root)
    if (root / CONNECTION).exists():  # a site with a grant: its other keys are as private as the identity
        check_modes(root)
    try:
        study = named_study(request)
        approval.path_of(root, study)
    except FairSynthError:
        study = ""
    return Gate(
        place=place,
        policy=read_policy(place.config),
        identity=load_identity(root),
        study=study,
        label=_label(request),
        approved=None,
    )


def _fields(envelope: Envelope) -> dict[str, Any]:
    """The JSON fields; none where they are not an object."""
    try:
        fields = json.loads(envelope.fields)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _readable(request: Callable[[], Envelope]) -> Envelope:
    """The request, or an empty one where it is damaged."""
    try:
        return request()
    except FairSynthError:
        return Envelope(kind="damaged", fields="{}")


def _label(request: Envelope) -> str:
    """The same for the same request: first 16 digits of its hash."""
    asked = Outgoing(
        kind=request.kind, text=request.fields, arrays=request.arrays, site="", study="", label="", cohort=""
    )
    return asked.sha256[:16]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
