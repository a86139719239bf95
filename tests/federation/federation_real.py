"""The smallest real study: two sites with simulated MIMIC-III tables, every package as it is."""

from __future__ import annotations

import contextlib
import json
import shutil
from functools import partial
from pathlib import Path

from federation_toys import toy_plan

from fairsynth.audit.fitting import bag_of_tokens
from fairsynth.audit.site import audit_site
from fairsynth.audit.taught import feedback_site
from fairsynth.config import (
    AuditConfig,
    AugmentationConfig,
    GeneratorConfig,
    GroupsConfig,
    SimulationConfig,
    TrainingConfig,
    VocabularyConfig,
)
from fairsynth.errors import FairSynthError
from fairsynth.federation import answering, boundary, site, site_teaching
from fairsynth.federation.messages import EnrolRequest, JoinRequest
from fairsynth.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]
WORK = {
    "join": answering.join,
    "enrol": site.enrol,
    "agree": site.agree,
    "train": site.train,
    "teach": partial(site_teaching.teach, bag=bag_of_tokens),
    "feedback": partial(site_teaching.feedback, attempt=feedback_site),
    "audit": partial(site.audit, evaluate=audit_site),
}


def real_plan(**changes):
    return toy_plan(
        **{
            "groups": GroupsConfig(names=("white", "black", "hispanic", "asian", "other"), reference=("white",)),
            "training": TrainingConfig(rounds=1, local_epochs=1, batch_size=32, round_deadline_seconds=300),
            "vocabulary": VocabularyConfig(minimum_patients=5, maximum_codes=120),
            "generator": GeneratorConfig(embedding=16, layers=1, heads=2, maximum_visits=6),
            "augmentation": AugmentationConfig(synthetic_patients=40),
            "audit": AuditConfig(predictors=("logistic_regression",), seeds=1),
            **changes,
        }
    )


def make_sites(root: Path, plan, *, patients: int = 220) -> dict[str, Path]:
    """A folder a site, with `site.json` and raw tables; each later site has 40 patients fewer."""
    folders = {}
    for number, name in enumerate(plan.roster):
        folder = folders[name] = root / name
        config = SimulationConfig(
            source="mimic3", patients=patients - 40 * number, seed=number + 1, mix="study", detail=0.02
        )
        simulate(config, folder / "raw")
        values = {"site": name, "config": str(own_config(folder)), "data": str(folder / "raw")}
        (folder / "site.json").write_text(json.dumps(values))
    return folders


def own_config(folder: Path) -> Path:
    """MIMIC-III's configuration, with a policy that names codes of 5 patients, as `real_plan` does."""
    config = shutil.copytree(ROOT / "site_configs" / "mimic3", folder / "configs" / "mimic3")
    policy = (ROOT / "site_configs" / "policy.yaml").read_text()
    policy = policy.replace("unmasked_records: refused", "unmasked_records: allowed")
    (folder / "configs" / "policy.yaml").write_text(policy.replace("minimum_cell: 11", "minimum_cell: 5"))
    return config


def approve(folders, plan):
    """Each site's approval, as an officer of each would give it; a site that cannot tells so when it is asked."""
    for folder in folders:
        with contextlib.suppress(FairSynthError):
            boundary.approve(folder, plan, officer="test")


class Local:
    """Asks each site in this process, as its ClientApp would; all sites approve what they are asked to join."""

    def __init__(self, folders):
        self.folders, self.replies, self.approved = folders, [], []

    @staticmethod
    def work(handler, root, request):
        return answering.answered(root, request, handler)

    def ask(self, requests, *, timeout):
        for name, request in requests.items():
            if request.kind in ("join", "enrol"):
                plan = {"join": JoinRequest, "enrol": EnrolRequest}[request.kind].unpack(request).plan
                if (name, plan) not in self.approved:
                    self.approved.append((name, plan))
                    approve([self.folders[name]], plan)
            reply = boundary.answer(
                lambda name=name: self.folders[name],
                lambda request=request: request,
                partial(self.work, WORK[request.kind]),
                phase=request.kind,
            )
            self.replies.append(reply)
            yield name, reply
