"""The site's Ed25519 key: made at the site, never leaves it, signs what the site stands for.

In:  a site folder.   Out: `Identity`, which signs; `verify`, for those who hold the public key alone.
Never: a private key that another user of the machine can read; a signature without a purpose in front of the message.

`identity.key` is PKCS8 PEM, mode 0600; `identity.pub` the public key, 64 hexadecimal digits. Signatures: RFC 8032.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fairsynth import artefacts
from fairsynth.errors import KeyRefused

PRIVATE, PUBLIC = "identity.key", "identity.pub"


@dataclass(frozen=True, kw_only=True, eq=False)
class Identity:
    """A site that can sign."""

    key: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """64 bytes. Begin `message` with what it is for, so that no signature serves another purpose."""
        return self.key.sign(message)

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self.key.public_key().public_bytes_raw()


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the holder of `public` (32 bytes) signed `message`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def create_identity(folder: Path) -> Identity:
    """A new key in `folder`. Raises KeyRefused when one is there already: it is never replaced."""
    path = folder / PRIVATE
    identity = Identity(key=Ed25519PrivateKey.generate())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyRefused.of("the site has a key already", where=str(path), do="keep it") from None
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(
            identity.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        handle.flush()
        os.fsync(handle.fileno())
    artefacts.write_text(folder / PUBLIC, identity.public.hex() + "\n")
    return identity


def load_identity(folder: Path) -> Identity:
    """The key in `folder`. Raises KeyRefused when it is missing, no Ed25519 key, or open to others."""
    path = folder / PRIVATE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        raise KeyRefused.of("no key of the site", where=str(path), do="fairsynth approve makes one") from None
    with os.fdopen(descriptor, "rb") as handle:
        _require_private(os.fstat(handle.fileno()), path)
        text = handle.read()
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyRefused.of("not a private key", where=str(path), expected="Ed25519, PKCS8 PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRefused.of("a key of another kind", where=str(path), expected="Ed25519, PKCS8 PEM")
    return Identity(key=key)


def ensure_identity(folder: Path) -> Identity:
    """The key in `folder`, made now where there is none. Raises KeyRefused."""
    return load_identity(folder) if (folder / PRIVATE).exists() else create_identity(folder)


def read_public(folder: Path) -> bytes:
    """The public key of the site at `folder`. Raises KeyRefused when it is missing or no key."""
    path = folder / PUBLIC
    try:
        public = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        public = b""
    if len(public) != 32:
        raise KeyRefused.of("no public key of the site", where=str(path), expected="64 hexadecimal digits")
    return public


def _require_private(status: os.stat_result, path: Path) -> None:
    """Raise KeyRefused unless the file is a regular one of this user, and of no other."""
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o177:
        raise KeyRefused.of(
            f"private key of mode {stat.S_IMODE(status.st_mode):04o}",
            where=str(path),
            expected="0600: read and written by its owner alone",
            do=f"chmod 600 {path}; if others could read it, make a new site key and approve anew",
        )
    if status.st_uid != os.geteuid():
        raise KeyRefused.of("private key of another user", where=str(path), expected="the user who runs the site")
