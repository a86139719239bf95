"""Toy sites, each behind a real boundary: policy, approval, identity, ledger."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from federation_toys import CODES, ToySite

from fairsynth import artefacts
from fairsynth.federation import boundary
from fairsynth.federation.messages import Envelope
from fairsynth.governance import ledger

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "site_configs" / "policy.yaml"
OPEN = SHIPPED.read_text(encoding="utf-8").replace("unmasked_records: refused", "unmasked_records: allowed")


@dataclass
class GovernedSite:
    """A toy site behind a real boundary; the events that it enrols with are named `data`."""

    root: Path
    toy: ToySite
    data: str = "a" * 64
    worked: list[str] = field(default_factory=list)

    def __call__(self, request: Envelope) -> Envelope:
        return self.ask(request)

    def ask(self, request: Envelope, work=None) -> Envelope:
        return boundary.answer(lambda: self.root, lambda: request, work or self.work, phase=request.kind)

    def work(self, root: Path, request: Envelope) -> Envelope:
        self.worked.append(request.kind)
        if request.kind == "enrol":
            self.write_events()
        return self.toy(request)

    def write_events(self):
        shutil.rmtree(self.root / "events", ignore_errors=True)
        manifest = {"schema": artefacts.SCHEMA, "kind": "events", "content": self.data}
        artefacts.write_json(self.root / "events" / "manifest.json", manifest)

    def approve(self, plan=None):
        boundary.approve(self.root, plan or self.toy.plan, officer="Dr. A. Lee")

    @property
    def lines(self):
        return ledger.read(self.root)

    @property
    def log(self):
        return [json.loads(line) for line in (self.root / "site.log").read_text().splitlines()]


def site_of(root: Path, plan, *, name="site-a", policy: str | None = None) -> GovernedSite:
    config, data = root / name / "config", root / name / "raw"
    for folder in (config, data):
        folder.mkdir(parents=True)
    (config / "site.yaml").write_text("schema: fairsynth.site/1\nsource: toy\n")
    (config / "rules.yaml").write_text("# rules\n")
    (config / "groups.yaml").write_text("# groups\n")
    (config / "policy.yaml").write_text(OPEN if policy is None else policy)
    (data / "PATIENTS.csv").write_text("ID\n1\n")
    values = {"site": name, "config": str(config), "data": str(data)}
    (root / name / "site.json").write_text(json.dumps(values))
    members = {"site-a": [[40, 5], [10, 2]], "site-b": [[20, 4], [15, 3]]}[name]
    return GovernedSite(root=root / name, toy=ToySite(name, members, plan, codes=dict(CODES)))
