"""A secret for each pair of sites of a run: X25519 keys, signed by the sites' identities.

In:  a verified roster, the announcements of all its sites.   Out: `PairKeys`, of one site.
Never: a key of another run, epoch or roster; a key that its site's identity did not sign.

RFC 7748 (X25519), RFC 5869 (HKDF), RFC 8032 (Ed25519), all of `cryptography`; it refuses the all-zero shared secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import NonNegativeInt

from fairsynth.artefacts import sha256_json
from fairsynth.config import Strict
from fairsynth.errors import Problem, ProtocolError
from fairsynth.federation.masking.roster import PROTOCOL, Hex32, Hex64, Roster
from fairsynth.governance.identity import Identity, verify
from fairsynth.schemas import SiteId

KEY_BYTES = 32


class Announcement(Strict):
    """A site's X25519 public key for one run and epoch, signed with its identity."""

    site: SiteId
    run: Hex32
    epoch: NonNegativeInt
    roster_sha256: Hex32
    public_key: Hex32
    signature: Hex64

    @property
    def signed_text(self) -> bytes:
        """What the signature is of."""
        return key_text(
            site=self.site, run=self.run, epoch=self.epoch, roster=self.roster_sha256, public_key=self.public_key
        )


def key_text(*, site: SiteId, run: str, epoch: int, roster: str, public_key: str) -> bytes:
    """What a site signs to announce a key."""
    return f"{PROTOCOL}|key|{run}|{epoch}|{roster}|{site}|{public_key}".encode()


def announce(private: X25519PrivateKey, *, site: SiteId, run: str, roster: Roster, identity: Identity) -> Announcement:
    """The announcement of the public half of `private`."""
    public = private.public_key().public_bytes_raw().hex()
    text = key_text(site=site, run=run, epoch=roster.epoch, roster=roster.sha256, public_key=public)
    return Announcement(
        site=site,
        run=run,
        epoch=roster.epoch,
        roster_sha256=roster.sha256,
        public_key=public,
        signature=identity.sign(text).hex(),
    )


def check_announcements(announced: Sequence[Announcement], *, roster: Roster, run: str) -> None:
    """Raise ProtocolError unless there is one valid announcement for every member, for this run and this roster."""
    problems = []
    if [one.site for one in announced] != list(roster.sites):
        problems.append(Problem(what="keys of other sites", where="keys", expected="one of each member, sorted"))
    if len({one.public_key for one in announced}) != len(announced):
        problems.append(Problem(what="a key announced twice", where="keys", expected="a key of its own for each site"))
    for one in announced:
        if (one.run, one.epoch, one.roster_sha256) != (run, roster.epoch, roster.sha256):
            problems.append(Problem(what="key of another run", where="keys", expected="this run, epoch and roster"))
        elif one.site in roster.sites and not verify(
            roster.key_of(one.site), one.signed_text, bytes.fromhex(one.signature)
        ):
            problems.append(Problem(what="key without a valid signature", where="keys", expected="its site's own"))
    if problems:
        raise ProtocolError(problems)


def transcript(announced: Sequence[Announcement], *, roster: Roster) -> bytes:
    """SHA-256 over the roster and all announcements: who does not see the same ones shares no key. 32 bytes."""
    digest = sha256_json([roster.sha256, *(one.model_dump(mode="json") for one in announced)])
    return hashlib.sha256(f"{PROTOCOL}|transcript|{digest}".encode()).digest()


@dataclass(frozen=True, kw_only=True, repr=False)
class PairKeys:
    """The secrets that `site` shares with each other site, 32 bytes each."""

    site: SiteId
    keys: Mapping[SiteId, bytes]


def pair_keys(
    private: X25519PrivateKey, announced: Sequence[Announcement], *, site: SiteId, roster: Roster, run: str
) -> PairKeys:
    """The pair keys of `site`. Raises ProtocolError unless all announcements are valid and its own is of `private`."""
    check_announcements(announced, roster=roster, run=run)
    own = next((one for one in announced if one.site == site), None)
    if own is None or own.public_key != private.public_key().public_bytes_raw().hex():
        raise ProtocolError.of("another key is announced for this site", where="keys", expected="the site's own")
    salt = transcript(announced, roster=roster)
    return PairKeys(
        site=site,
        keys={
            one.site: _pair_key(private, bytes.fromhex(one.public_key), salt=salt, pair=(site, one.site))
            for one in announced
            if one.site != site
        },
    )


def _pair_key(private: X25519PrivateKey, public: bytes, *, salt: bytes, pair: tuple[SiteId, SiteId]) -> bytes:
    first, second = sorted(pair)
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # a point of small order
        raise ProtocolError.of("key that gives no secret", where="keys", expected="an X25519 public key") from None
    info = f"{PROTOCOL}|pair|{first}|{second}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)
