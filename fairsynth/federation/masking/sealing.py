"""The site's side of a masked study: every reply leaves as a vector that only the sum of all sites opens.

In:  a request, the work that makes the plain reply.   Out: the reply as it may leave.
Never: a plain reply in a masked study; a second payload under one label; a request of a plan that the site has not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fairsynth.artefacts import sha256_json
from fairsynth.config import StudyPlan
from fairsynth.errors import ProtocolError
from fairsynth.federation.masking.form import Form, Known, taken_apart
from fairsynth.federation.masking.forms import form_of
from fairsynth.federation.masking.keys import PairKeys
from fairsynth.federation.masking.masks import Label, mask_in_place, vector_sha256
from fairsynth.federation.masking.outbox import Outbox, Payload
from fairsynth.federation.masking.roster import PROTOCOL, read_roster
from fairsynth.federation.masking.session import FOLDER, Here, Session, join, meet, met
from fairsynth.federation.messages import EnrolRequest, Envelope, JoinReply, JoinRequest, SealedReply
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance.identity import load_identity
from fairsynth.schemas import Arrays, SiteId

VECTOR = "masked"

Work = Callable[[Path, Envelope], Envelope]


def joined(root: Path, request: Envelope, *, site: SiteId) -> Envelope:
    """The reply to a join request. Raises ProtocolError unless all sites signed a roster for its plan."""
    body = JoinRequest.unpack(request)
    here = _here(root, body.plan, site=site)
    key = join(here, run=body.run, epoch=body.epoch)
    return JoinReply(site=site, plan_sha256=plan_sha256(body.plan), key=key).pack()


def sealed(
    root: Path, request: Envelope, work: Work, *, site: SiteId, plan: StudyPlan, known: Known | None
) -> Envelope:
    """The masked reply to `request`, of the plain one that `work` makes; asked again, the same bytes.

    `known` is what the agree request fixed, None before it. Raises ProtocolError on numbers out of their bounds,
    PolicyRefusal when the label was used for another request.
    """
    here = _here(root, plan, site=site)
    if request.kind == EnrolRequest.kind:
        meet(here, EnrolRequest.unpack(request).keys)
    session, keys = met(here)
    form = form_of(request, plan=plan, known=known)
    outbox, key = Outbox(root / FOLDER), f"{session.run}|{session.epoch}|{form.purpose}"
    asked = request_sha256(request)
    payload = outbox.again(key, request_sha256=asked)
    if payload is None:
        payload = _payload(here, form, taken_apart(form, work(root, request)), session=session, keys=keys)
        outbox.keep(key, payload, request_sha256=asked)
    return Envelope(kind=SealedReply.kind, fields=payload.fields, arrays={VECTOR: payload.vector})


def _payload(
    here: Here, form: Form, parts: tuple[dict[str, Any], Arrays], *, session: Session, keys: PairKeys
) -> Payload:
    """The masked vector of a site's numbers, and its fields, signed."""
    said, arrays = parts
    patients = int(arrays["patients"]) if form.schema.is_weighted else 1
    label = label_of(form, run=session.run, epoch=session.epoch)
    hidden = mask_in_place(form.schema.vector(arrays, patients=patients), keys, label=label)
    digest = vector_sha256(hidden)
    text = reply_text(label, site=here.site, said=said, vector=digest)
    reply = SealedReply(
        site=here.site,
        plan_sha256=here.roster.plan_sha256,
        of=form.kind,
        run=session.run,
        epoch=session.epoch,
        purpose=form.purpose,
        schema_sha256=form.schema.sha256,
        said=said,
        signature=here.identity.sign(text).hex(),
    )
    return Payload(fields=reply.model_dump_json(), vector=hidden, vector_sha256=digest)


def label_of(form: Form, *, run: str, epoch: int) -> Label:
    """The label of a reply of this form."""
    return Label(
        run=run,
        epoch=epoch,
        purpose=form.purpose,
        schema_sha256=form.schema.sha256,
        length=form.schema.length,
    )


def reply_text(label: Label, *, site: SiteId, said: dict[str, Any], vector: str) -> bytes:
    """What a site signs of a reply: its label, what it says openly, and the hash of its masked vector."""
    return f"{PROTOCOL}|reply|{label.text}|{site}|{sha256_json(said)}|{vector}".encode()


def _here(root: Path, plan: StudyPlan, *, site: SiteId) -> Here:
    roster = read_roster(root).verified(plan_sha256=plan_sha256(plan), sites=plan.roster)
    identity = load_identity(root)
    if roster.key_of(site) != identity.public:
        raise ProtocolError.of("the roster has another key for this site", where="roster", expected="the site's own")
    return Here(root=root, site=site, identity=identity, roster=roster)


def request_sha256(request: Envelope) -> str:
    """Hash of kind, fields, and every array with its name, type and shape."""
    digest = hashlib.sha256(f"{request.kind}|{len(request.fields)}|{request.fields}".encode())
    for name in sorted(request.arrays):
        array = np.asarray(request.arrays[name], order="C")
        digest.update(f"|{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.data)
    return digest.hexdigest()
