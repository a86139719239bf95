"""A site's update, for an attack that reads off which codes occur at the site (docs/security.md)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "generator"))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from generator_toys import records_of, study_of, vocabulary

from fairsynth.config import GeneratorConfig
from fairsynth.federation.masking.keys import announce, pair_keys
from fairsynth.federation.masking.masks import Label, masked
from fairsynth.federation.masking.records import Record, Schema
from fairsynth.federation.masking.roster import Member, Roster
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import train
from fairsynth.governance.identity import Identity

CODES, PATIENTS = 120, 200
CONFIG = GeneratorConfig(embedding=16, layers=1, heads=2, maximum_visits=6)
RECORD = Record(name="w", shape=(CODES, 16), bits=24, bound=1024.0, lower=-1024.0, mean=True)
SITES = ("a", "b", "c")


def site_update():
    """(C, d) embeddings of the codes before and after one epoch, and (C,) whether a code occurs at the site.

    Half the codes occur; ten of them in one visit of one patient each.
    """
    words, draw = vocabulary(codes=CODES, groups=2), np.random.default_rng(5)
    common, rare = np.arange(0, 100, 2), np.arange(101, 120, 2)
    patients = []
    for number in range(PATIENTS):
        visits = [sorted(draw.choice(common, size=6, replace=False).tolist()) for _ in range(2)]
        if number < len(rare):
            visits[0] = sorted([*visits[0], int(rare[number])])
        patients.append((number % 2, int(draw.random() < 0.3), 0, 0, [], visits))
    records = records_of(patients, words=words)
    before = initial_weights(words, CONFIG, seed=1)
    study = study_of(records, words=words, generator=CONFIG, learning_rate=1e-3, batch_size=32)
    after = train(before, records=records, study=study, coefficients=None, epochs=1, seed=3).weights
    occurs = np.isin(np.arange(CODES), np.concatenate([common, rare]))
    return before["embedding"][:CODES], after["embedding"][:CODES], occurs


def masked_update(before, after) -> np.ndarray:
    """(C,) the same scores, from the vector that the server of a masked study receives of the site."""
    identities = {site: Identity(key=Ed25519PrivateKey.generate()) for site in SITES}
    members = tuple(Member(site=site, public_key=identities[site].public.hex()) for site in SITES)
    roster = Roster(plan_sha256="00" * 32, minimum_sites=3, members=members)
    private, run = {site: X25519PrivateKey.generate() for site in SITES}, "00" * 32
    announced = [announce(private[s], site=s, run=run, roster=roster, identity=identities[s]) for s in SITES]
    schema = Schema(records=(RECORD,), patients=3 * PATIENTS)
    label = Label(run=run, epoch=0, purpose="train|plain|0", schema_sha256=schema.sha256, length=schema.length)
    keys = pair_keys(private["a"], announced, site="a", roster=roster, run=run)
    seen = masked(schema.vector({"w": after}, patients=PATIENTS), keys, label=label)
    moved = (seen - schema.vector({"w": before}, patients=PATIENTS).view(np.uint64)).view(np.int64)
    return np.abs(moved[:-1].reshape(CODES, -1).astype(float)).sum(axis=1)
