"""Who takes part in a study, by public key: signed by every site, out of band.

In:  `roster.json`.   Out: `SignedRoster`, verified.
Never: a key that the server introduced; a roster of which one signature is missing.

A new epoch of the same sites has new keys in nothing but its number; a site that leaves for good needs a new plan.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from pydantic import ValidationError as PydanticError

from fairsynth.artefacts import sha256_json, write_text
from fairsynth.config import Strict
from fairsynth.errors import Problem, ProtocolError
from fairsynth.governance.identity import Identity, verify
from fairsynth.schemas import SiteId

PROTOCOL = "fairsynth.masking/1"
MAXIMUM_SITES = 64  # sums of so many fixed-point numbers do not wrap (`records`)
NAME = "roster.json"
MAXIMUM_BYTES = 1 << 20

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # 32 bytes
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]  # 64 bytes


class Member(Strict):
    """A site and its Ed25519 public key."""

    site: SiteId = Field(pattern=r"^[a-z][a-z0-9_-]{0,47}$")
    public_key: Hex32


class Roster(Strict):
    """The sites of one epoch of a study, sorted by id."""

    schema_: Literal["fairsynth.roster/1"] = Field(default="fairsynth.roster/1", alias="schema")
    protocol: Literal["fairsynth.masking/1"] = "fairsynth.masking/1"
    plan_sha256: Hex32
    epoch: NonNegativeInt = 0
    minimum_sites: PositiveInt  # below it no site sends a masked number
    members: tuple[Member, ...] = Field(min_length=2, max_length=MAXIMUM_SITES)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sites = [member.site for member in self.members]
        if sites != sorted(set(sites)):
            raise ValueError("sites must be sorted, each named once")
        if len({member.public_key for member in self.members}) != len(sites):
            raise ValueError("two sites have the same key")
        if len(sites) < self.minimum_sites:
            raise ValueError("fewer sites than `minimum_sites`")
        return self

    @property
    def sites(self) -> tuple[SiteId, ...]:
        """The ids, sorted."""
        return tuple(member.site for member in self.members)

    @property
    def sha256(self) -> str:
        """The hash that names the roster."""
        return sha256_json(self.model_dump(mode="json", by_alias=True))

    @property
    def signed_text(self) -> bytes:
        """What every site signs."""
        return f"{PROTOCOL}|roster|{self.sha256}".encode()

    def key_of(self, site: SiteId) -> bytes:
        """The Ed25519 public key of a member, 32 bytes. Raises ProtocolError when it is not one."""
        for member in self.members:
            if member.site == site:
                return bytes.fromhex(member.public_key)
        raise ProtocolError.of("a site that is not on the roster", where="roster", expected="one of its members")


class SignedRoster(Strict):
    """A roster, and every member's signature of it."""

    file: ClassVar[str] = NAME
    roster: Roster
    signatures: dict[SiteId, Hex64] = {}

    def signed(self, site: SiteId, identity: Identity) -> SignedRoster:
        """With the signature of `site`. Raises ProtocolError when the roster has another key for it."""
        if self.roster.key_of(site) != identity.public:
            raise ProtocolError.of(
                "the roster has another key for this site", where=f"roster, {site}", expected="the site's own key"
            )
        signature = identity.sign(self.roster.signed_text).hex()
        return self.model_copy(update={"signatures": {**self.signatures, site: signature}})

    def verified(self, *, plan_sha256: str, sites: Collection[SiteId]) -> Roster:
        """The roster. Raises ProtocolError unless it is of this plan and its `sites`, and all of them signed it.

        Of all sites of the plan: sums over some of them, taken from sums over all, would be the numbers of the others.
        """
        roster = self.roster
        problems = [
            Problem(what="roster without a valid signature", where=f"roster, {site}", expected="signed by every member")
            for site in roster.sites
            if not self._verify_by(site)
        ]
        if set(self.signatures) - set(roster.sites):
            problems.append(Problem(what="signature of no member", where="roster", expected="members only"))
        if roster.sites != tuple(sorted(sites)):
            problems.append(Problem(what="roster of other sites", where="roster", expected="all sites of the plan"))
        if roster.plan_sha256 != plan_sha256:
            problems.append(Problem(what="roster of another plan", where="roster", expected="this study's plan"))
        if problems:
            raise ProtocolError(problems)
        return roster

    def _verify_by(self, site: SiteId) -> bool:
        signature = self.signatures.get(site, "")
        return verify(self.roster.key_of(site), self.roster.signed_text, bytes.fromhex(signature))


def read_roster(folder: Path) -> SignedRoster:
    """`folder/roster.json`. Raises ProtocolError when it is missing or not a roster."""
    return read_roster_file(folder / NAME)


def read_roster_file(path: Path) -> SignedRoster:
    """The roster in the file `path`. Raises ProtocolError when it is missing or not a roster."""
    if not path.is_file() or path.stat().st_size > MAXIMUM_BYTES:
        raise ProtocolError.of(
            "no roster", where=str(path), expected="the roster that every site signed", do="docs/masking.md says how"
        )
    try:
        return SignedRoster.model_validate_json(path.read_text(encoding="utf-8"))
    except PydanticError as error:
        keys = sorted({".".join(map(str, detail["loc"])) for detail in error.errors()})
        raise ProtocolError.of("file does not fit its schema", where=str(path), expected=f"valid {keys}") from None


def write_roster(folder: Path, roster: SignedRoster) -> None:
    """Write `folder/roster.json`, atomically."""
    write_roster_file(folder / NAME, roster)


def write_roster_file(path: Path, roster: SignedRoster) -> None:
    """Write the file `path`, atomically."""
    write_text(path, roster.model_dump_json(by_alias=True, indent=2) + "\n")
