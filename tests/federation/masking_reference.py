"""An independent short implementation of the masked sum, from the standards and docs/masking.md alone.

HKDF is written out from RFC 5869 with hmac; X25519 and ChaCha20 are `cryptography`'s, called in another way.
"""

import hashlib
import hmac
import json
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

V = "fairsynth.masking/1"


def expand(key: bytes, info: str) -> bytes:
    return hmac.new(key, info.encode() + b"\x01", hashlib.sha256).digest()


def canonical(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def reference(values: dict[str, list[int]], keys: dict[str, str], *, roster: str, announced: list, label: str):
    """site -> masked words, for site -> integers and site -> X25519 private key (hex)."""
    salt = hashlib.sha256(f"{V}|transcript|{canonical([roster, *announced])}".encode()).digest()
    private = {site: X25519PrivateKey.from_private_bytes(bytes.fromhex(key)) for site, key in keys.items()}
    found = {}
    for me in values:
        words = [value % 2**64 for value in values[me]]
        for other in values:
            if other == me:
                continue
            public = X25519PublicKey.from_public_bytes(private[other].public_key().public_bytes_raw())
            low, high = sorted((me, other))
            secret = hmac.new(salt, private[me].exchange(public), hashlib.sha256).digest()
            key = expand(expand(secret, f"{V}|pair|{low}|{high}"), label)
            stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(8 * len(words)))
            mask = struct.unpack(f"<{len(words)}Q", stream)
            sign = 1 if other > me else -1
            words = [(word + sign * one) % 2**64 for word, one in zip(words, mask, strict=True)]
        found[me] = words
    return found
