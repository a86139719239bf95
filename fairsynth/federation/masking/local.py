"""A roster for sites that are all on this machine: a rehearsal, a demonstration, a test.

In:  the sites' folders.   Out: `roster.json`, signed by all, in each and in the server's folder.
Never: in a real study, where each site signs at home (`fairsynth roster`, docs/masking.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fairsynth.config import StudyPlan
from fairsynth.federation.masking.roster import Member, Roster, SignedRoster, write_roster
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance.identity import PRIVATE, create_identity, load_identity
from fairsynth.schemas import SiteId


def sign_here(plan: StudyPlan, folders: Mapping[SiteId, Path], *, server: Path) -> SignedRoster:
    """Sign the roster with every site's identity; a site without one gets one. Raises KeyRefused."""
    identities = {
        site: load_identity(folder) if (folder / PRIVATE).exists() else create_identity(folder)
        for site, folder in sorted(folders.items())
    }
    signed = SignedRoster(
        roster=Roster(
            plan_sha256=plan_sha256(plan),
            minimum_sites=len(identities),
            members=tuple(Member(site=site, public_key=one.public.hex()) for site, one in identities.items()),
        )
    )
    for site, identity in identities.items():
        signed = signed.signed(site, identity)
    for folder in (*folders.values(), server):
        write_roster(folder, signed)
    return signed
