"""One site with two tables and a policy, and the message that it wants to send: small enough to spoil one thing."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from fairsynth.config import (
    AuditConfig,
    AugmentationConfig,
    GeneratorConfig,
    GroupsConfig,
    ObjectiveConfig,
    PrivacyConfig,
    SplitConfig,
    StudyPlan,
    TaskConfig,
    TrainingConfig,
    VocabularyConfig,
)
from fairsynth.governance import ledger
from fairsynth.governance.approval import Place, approve, check_approved, plan_sha256
from fairsynth.governance.egress import Outgoing, release
from fairsynth.governance.identity import ensure_identity
from fairsynth.governance.policy import TEMPLATE, read_policy

NOW = datetime.datetime(2026, 11, 28, 9, 0, tzinfo=datetime.UTC)
COHORT = "c" * 64
OPEN = {"unmasked_records: refused": "unmasked_records: allowed"}


def a_plan(**changes) -> StudyPlan:
    """Three sites, two groups."""
    values = {
        "name": "toy",
        "seed": 7,
        "roster": ("site-a", "site-b", "site-c"),
        "quorum": 3,
        "task": TaskConfig(),
        "split": SplitConfig(),
        "groups": GroupsConfig(names=("white", "black"), reference=("white",)),
        "vocabulary": VocabularyConfig(),
        "objective": ObjectiveConfig(),
        "generator": GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=4),
        "training": TrainingConfig(rounds=2),
        "augmentation": AugmentationConfig(synthetic_patients=10),
        "audit": AuditConfig(predictors=("logistic_regression",), seeds=2),
        "privacy": PrivacyConfig(profile="plain", agreement="toys"),
    }
    return StudyPlan(**(values | changes))


def a_place(root: Path, *, policy: dict[str, str] | None = OPEN, name: str = "site-a") -> Place:
    """A site whose policy is the strict default with these changes; None: without a policy."""
    config, data = root / "config", root / "raw"
    for folder in (config, data):
        folder.mkdir(parents=True)
    (config / "site.yaml").write_text("schema: fairsynth.site/1\nsource: toy\n")
    (config / "rules.yaml").write_text("schema: fairsynth.rules/1\n")
    (config / "groups.yaml").write_text("schema: fairsynth.groups/1\n")
    (data / "PATIENTS.csv").write_text("ID\n1\n")
    (root / "site.json").write_text(json.dumps({"site": name, "config": str(config), "data": str(data)}))
    if policy is not None:
        text = TEMPLATE.read_text(encoding="utf-8")
        for old, new in policy.items():
            assert old in text
            text = text.replace(old, new)
        (config / "policy.yaml").write_text(text)
    return Place(root=root, site=name, config=config, data=data)


class Desk:
    """A site with an approved study, at whose exit messages are tried."""

    def __init__(self, root: Path, *, policy: dict[str, str] | None = OPEN, plan: StudyPlan | None = None):
        self.place, self.plan = (
            a_place(root, policy=policy),
            plan or a_plan(**({} if policy else {"privacy": PrivacyConfig()})),
        )
        self.root, self.study = root, plan_sha256(self.plan)
        self.identity = ensure_identity(root)
        self.approve()

    def approve(self):
        return approve(self.place, self.plan, identity=self.identity, officer="Dr. A. Lee", now=NOW)

    def release(self, outgoing: Outgoing, **changes):
        policy = read_policy(self.place.config)
        approval = check_approved(self.place, self.study, policy=policy, identity=self.identity)
        with ledger.opened(self.root, identity=self.identity) as book:
            return release(outgoing, **{"policy": policy, "ledger": book, "approval": approval, "now": NOW} | changes)

    def lines(self):
        return ledger.read(self.root)

    def trained(self, **changes) -> Outgoing:
        """Counts and weights after a round, unmasked."""
        fields = {
            "site": "site-a",
            "plan_sha256": self.study,
            "arm": "plain",
            "round": 0,
            "patients": 57,
            "nll_train": 500.0,
            "nll_validation": 40.0,
            "cells_train": 140,
            "cells_validation": 20,
            "bounded": False,
        }
        counts = np.array([[45.0, 5.0, 6.0, 2.0], [12.0, 2.0, 3.0, 1.0]])
        weight = np.full((3, 2), 0.5, dtype=np.float32)
        arrays = {"soft": counts, "hard": np.rint(counts), "weight/embed": weight, "first/embed": weight}
        return self.message("trained", fields, arrays, **changes)

    def masked(self, **changes) -> Outgoing:
        """The same round, masked: only what is public is in clear."""
        fields = {
            "site": "site-a",
            "plan_sha256": self.study,
            "of": "fed_back",
            "run": "0" * 64,
            "epoch": 0,
            "purpose": "feedback|1",
            "schema_sha256": "0" * 64,
            "said": {},
            "signature": "0" * 128,
        }
        values = np.random.default_rng(1).integers(0, 2**64, size=50, dtype=np.uint64)
        return self.message("sealed_fed_back", fields, {"masked": values}, masked=frozenset({"masked"}), **changes)

    def message(self, kind, fields, arrays, **changes) -> Outgoing:
        values = {
            "kind": kind,
            "text": json.dumps(fields),
            "arrays": arrays,
            "site": "site-a",
            "study": self.study,
            "label": f"{kind}/0",
            "cohort": COHORT,
        }
        return Outgoing(**(values | changes))


def with_field(outgoing: Outgoing, **fields) -> Outgoing:
    return replace(outgoing, text=json.dumps(json.loads(outgoing.text) | fields))


def with_array(outgoing: Outgoing, name: str, array) -> Outgoing:
    return replace(outgoing, arrays=outgoing.arrays | {name: array})
