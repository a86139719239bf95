"""Known answers of the masked sum, for others: python -m benchmarks.masking_vectors > docs/vectors/masking.json

Keys are derived from the case's name, so that the file is the same every time; no real site has such keys.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fairsynth.federation.masking.keys import announce, pair_keys, transcript
from fairsynth.federation.masking.masks import Label, Total, masked
from fairsynth.federation.masking.roster import Member, Roster
from fairsynth.governance.identity import Identity

CASES = {
    "two sites": (2, [[0, 1, 2**40 - 1], [5, 0, 1]]),
    "three sites, negative numbers": (3, [[-1, -(2**55), 0], [1, 2**55, 0], [7, -7, -(2**62) // 64]]),
    "five sites, one number": (5, [[i * 11] for i in range(5)]),
    "three sites, more than one block of the cipher": (3, [list(range(i, i + 20)) for i in range(3)]),
}


def seed(*path: object) -> bytes:
    return hashlib.sha256(repr(path).encode()).digest()


def case(name: str) -> dict[str, object]:
    number, values = CASES[name]
    sites = [f"site-{index:02d}" for index in range(number)]
    identities = {site: Identity(key=Ed25519PrivateKey.from_private_bytes(seed(name, site, "id"))) for site in sites}
    roster = Roster(
        plan_sha256=seed(name, "plan").hex(),
        minimum_sites=number,
        members=tuple(Member(site=site, public_key=identities[site].public.hex()) for site in sites),
    )
    run = seed(name, "run").hex()
    private = {site: X25519PrivateKey.from_private_bytes(seed(name, site, "x25519")) for site in sites}
    announced = [announce(private[s], site=s, run=run, roster=roster, identity=identities[s]) for s in sites]
    label = Label(
        run=run, epoch=0, purpose="train|plain|0", schema_sha256=seed(name, "schema").hex(), length=len(values[0])
    )
    vectors = {
        site: masked(
            np.array(values[index], dtype=np.int64),
            pair_keys(private[site], announced, site=site, roster=roster, run=run),
            label=label,
        )
        for index, site in enumerate(sites)
    }
    total = Total()
    for vector in vectors.values():
        total.add(vector)
    return {
        "name": name,
        "roster": roster.model_dump(mode="json", by_alias=True),
        "roster_sha256": roster.sha256,
        "announced": [one.model_dump(mode="json") for one in announced],
        "transcript_sha256": transcript(announced, roster=roster).hex(),
        "x25519_private": {site: private[site].private_bytes_raw().hex() for site in sites},
        "label": label.text,
        "values": {site: values[index] for index, site in enumerate(sites)},
        "masked": {site: [f"{int(word):016x}" for word in vectors[site]] for site in sites},
        "sum": total.opened().tolist(),
    }


if __name__ == "__main__":
    print(json.dumps({"protocol": "fairsynth.masking/1", "cases": [case(name) for name in CASES]}, indent=1))
