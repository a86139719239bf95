"""Toy sites of a masked study: each has a folder with its identity and the roster, as a real site has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from federation_toys import ToySite, toy_plan

from fairsynth.config import PrivacyConfig, StudyPlan
from fairsynth.federation import answering
from fairsynth.federation.masking.masks import Total
from fairsynth.federation.masking.roster import Member, Roster, SignedRoster, write_roster
from fairsynth.federation.messages import AgreeRequest, EnrolRequest, Envelope
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance.identity import Identity, create_identity


def summed(vectors) -> np.ndarray:
    """The sum of masked vectors as two's complement."""
    total = Total()
    for vector in vectors:
        total.add(vector)
    return total.opened()


def masked_plan(sites: str = "abc", **changes) -> StudyPlan:
    """Three sites, whose sums alone leave them."""
    roster = tuple(f"site-{letter}" for letter in sites)
    return toy_plan(**{"roster": roster, "quorum": len(roster), "privacy": PrivacyConfig(), **changes})


def signed_roster(plan, identities: dict[str, Identity], *, epoch: int = 0) -> SignedRoster:
    """The roster of these sites, signed by all."""
    roster = Roster(
        plan_sha256=plan_sha256(plan),
        epoch=epoch,
        minimum_sites=len(identities),
        members=tuple(Member(site=site, public_key=identities[site].public.hex()) for site in sorted(identities)),
    )
    signed = SignedRoster(roster=roster)
    for site, identity in identities.items():
        signed = signed.signed(site, identity)
    return signed


class MaskedToySite:
    """Answers as a site does: `answering` around the toy's plain replies."""

    def __init__(self, root: Path, toy: ToySite) -> None:
        self.root, self.toy, self.sent = root, toy, []

    def __call__(self, request: Envelope) -> Envelope | None:
        work = answering.join if request.kind == "join" else self.work
        reply = answering.answered(self.root, request, work)
        self.sent.append(reply)
        return reply

    def work(self, root: Path, request: Envelope) -> Envelope:
        reply = self.toy(request)
        if request.kind == "enrol":
            plan = EnrolRequest.unpack(request).plan
            (root / "plan.json").write_text(plan.model_dump_json(by_alias=True), encoding="utf-8")
        if request.kind == "agree":
            body = AgreeRequest.unpack(request)
            shared = {
                "plan_sha256": body.plan_sha256,
                "vocabulary_sha256": json.loads(reply.fields)["vocabulary_sha256"],
                "patients": body.patients,
                "visits": body.visits,
                "codes": len(body.codes),
            }
            (root / "shared.json").write_text(json.dumps(shared), encoding="utf-8")
        return reply


def masked_sites(root: Path, plan, toys: dict[str, ToySite]) -> dict[str, MaskedToySite]:
    """A folder under `root` for each toy, and the server's roster in `root/server`."""
    folders = {site: root / site for site in toys}
    for folder in folders.values():
        folder.mkdir(parents=True)
    identities = {site: create_identity(folder) for site, folder in folders.items()}
    roster = signed_roster(plan, identities)
    for site, folder in folders.items():
        write_roster(folder, roster)
        entry = {"site": site, "config": ".", "data": "."}
        (folder / "site.json").write_text(json.dumps(entry), encoding="utf-8")
    write_roster(root / "server", roster)
    return {site: MaskedToySite(folder, toys[site]) for site, folder in folders.items()}
