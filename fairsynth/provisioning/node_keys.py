"""A SuperNode's key: ECDSA P-384 in OpenSSH's format, as Flower wants it.

In:  a file's name.   Out: the key, its public line, its fingerprint; signatures with it.
Never: a key of another kind or curve; a private key that another user of the machine can read.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fairsynth import artefacts
from fairsynth.errors import KeyRefused, ProvisioningRefused
from fairsynth.provisioning.permissions import read_private

KIND = "ecdsa-sha2-nistp384"
_EXPECTED = f"{KIND} (ECDSA P-384), OpenSSH"


def write_node_key(private: Path, public: Path | None = None) -> ec.EllipticCurvePrivateKey:
    """A new key in the file `private`, and its public line in `public` where that is wanted."""
    key = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    artefacts.write_bytes(private, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    if public is not None:
        artefacts.write_text(public, public_line(key) + "\n")
    return key


def read_node_key(private: Path) -> ec.EllipticCurvePrivateKey:
    """The key in the file `private`. Raises KeyRefused when it is missing, of another kind, or open to others."""
    try:
        key = serialization.load_ssh_private_key(read_private(private), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyRefused.of("not a SuperNode key", where=str(private), expected=_EXPECTED) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise KeyRefused.of("a key of another kind", where=str(private), expected=_EXPECTED)
    return key


def public_line(key: ec.EllipticCurvePrivateKey) -> str:
    """The public key as one line of OpenSSH, without a comment."""
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(encoding, form).decode()


def parse_public(line: str, *, where: str) -> ec.EllipticCurvePublicKey:
    """The public key of a line. Raises ProvisioningRefused unless it is of our kind, written as we do."""
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ProvisioningRefused.of("not a SuperNode's public key", where=where, expected=_EXPECTED) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ProvisioningRefused.of("a SuperNode key of another kind", where=where, expected=_EXPECTED)
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    if key.public_bytes(encoding, form).decode() != line:  # one key, one line: keys are compared as text
        raise ProvisioningRefused.of("a public key with something behind it", where=where, expected=_EXPECTED)
    return key


def fingerprint(line: str) -> str:
    """Hex SHA-256 of a public key; `ssh-keygen -lf` shows the same 32 bytes in base64."""
    return hashlib.sha256(base64.b64decode(line.split()[1])).hexdigest()


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """An ECDSA signature (DER, SHA-384). Begin `message` with what it is for."""
    return key.sign(message, ec.ECDSA(hashes.SHA384()))


def verify(key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> bool:
    """Whether the holder of `key` signed `message`."""
    try:
        key.verify(signature, message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True
