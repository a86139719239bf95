"""What masking costs: `python -m benchmarks.privacy [--quick] [--json] [--sites 3]`.

One masked study of simulated sites, every package as it is, on one core and in one process. At each request the time
of the work itself (what a plain study does) is taken beside that of the whole answer, so that both meet the same noise:

statistics_overhead  masking the statistics of a round, as a share of a round's work
weights_overhead     masking weights, moments and statistics of a round, as a share of the same
bytes_ratio          bytes of a masked training reply over those of a plain one in float32
peers                the site's shares again, with as many other sites in the roster
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from safetensors.numpy import save

from fairsynth.audit.site import audit_site
from fairsynth.config import PrivacyConfig, StudyPlan, read_study
from fairsynth.federation import answering, site
from fairsynth.federation.masking.form import Form, Known, taken_apart
from fairsynth.federation.masking.forms import form_of
from fairsynth.federation.masking.keys import PairKeys, announce, pair_keys
from fairsynth.federation.masking.local import sign_here
from fairsynth.federation.masking.masks import masked
from fairsynth.federation.masking.roster import Member, Roster
from fairsynth.federation.masking.sealing import label_of
from fairsynth.federation.messages import Envelope, TrainRequest
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from fairsynth.governance.identity import Identity
from fairsynth.schemas import SiteId
from fairsynth.simulate import simulate

ROOT = Path(__file__).resolve().parents[1]
PEERS = (2, 4, 9, 49)


class Timed:
    """A transport that asks each site in this process, and takes the time of its work and of its whole answer."""

    def __init__(self, folders: Mapping[SiteId, Path]) -> None:
        self.folders = folders
        self.work: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.answer: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.plain_bytes = self.masked_bytes = 0
        self.last: tuple[Envelope, Envelope] | None = None  # a training request, and the plain reply to it

    def ask(self, requests, *, timeout):
        """As `federation.conversation.Transport`."""
        for name, request in requests.items():
            kind = request.kind, TrainRequest.unpack(request).epochs if request.kind == "train" else 0
            started = time.perf_counter()
            reply = answering.answered(self.folders[name], request, partial(self._worked, kind))
            self.answer[kind].append(time.perf_counter() - started)
            if kind == ("train", 1):
                self.masked_bytes = len(save(reply.arrays)) + len(reply.fields)
            yield name, reply

    def _worked(self, kind, root, request):
        handlers = {
            "join": answering.join,
            "enrol": site.enrol,
            "agree": site.agree,
            "train": site.train,
            "audit": partial(site.audit, evaluate=audit_site),
        }
        started = time.perf_counter()
        reply = handlers[request.kind](root, request)
        self.work[kind].append(time.perf_counter() - started)
        if kind == ("train", 1):
            self.plain_bytes = len(save(reply.arrays)) + len(reply.fields)
            self.last = request, reply
        return reply


def plan_of(sites: int, *, rounds: int) -> StudyPlan:
    """The demonstration's generator and task, with so many sites of one source."""
    demo = read_study(ROOT / "studies" / "demo.yaml").plan()
    roster = tuple(SiteId(f"site-{number}") for number in range(sites))
    groups = demo.groups.model_copy(
        update={"names": ("white", "black", "hispanic", "asian", "other"), "reference": ("white",)}
    )
    return demo.model_copy(
        update={
            "roster": roster,
            "quorum": sites,
            "groups": groups,
            "privacy": PrivacyConfig(),
            "training": demo.training.model_copy(update={"rounds": rounds}),
            "augmentation": demo.augmentation.model_copy(
                update={"synthetic_patients": 50, "candidates": "prefix", "home_rounds": 0}
            ),
            "audit": demo.audit.model_copy(update={"predictors": ("logistic_regression",), "seeds": 1}),
        }
    )


def measure(*, sites: int, patients: int, rounds: int) -> dict[str, object]:
    """The shares and the ratio, medians over sites and rounds."""
    torch.set_num_threads(1)
    plan = plan_of(sites, rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        folders = open_sites(Path(folder), plan, patients=patients)
        sign_here(plan, folders, server=Path(folder) / "server")
        transport = Timed(folders)
        run_study(transport, plan=plan, root=Path(folder) / "server")
        shared = site.shared_by(folders[plan.roster[0]])
    known = Known(patients=shared.patients, codes=shared.codes)
    round_seconds = statistics.median(transport.work[("train", 1)])

    def cost(kind: tuple[str, int]) -> float:
        pairs = zip(transport.answer[kind], transport.work[kind], strict=True)
        return statistics.median(answer - work for answer, work in pairs)

    assert transport.last is not None
    request, reply = transport.last
    return {
        "sites": sites,
        "patients_a_site": patients,
        "parameters": sum(array.size for name, array in request.arrays.items() if name.startswith("weight/")),
        "round_seconds": round_seconds,
        "statistics_overhead": cost(("train", 0)) / round_seconds,
        "weights_overhead": cost(("train", 1)) / round_seconds,
        "bytes_ratio": transport.masked_bytes / transport.plain_bytes,
        "peers": {
            peers: peers_overhead(request, reply, plan, known, peers=peers, seconds=round_seconds) for peers in PEERS
        },
    }


def open_sites(root: Path, plan: StudyPlan, *, patients: int) -> dict[SiteId, Path]:
    """A folder for each site, with simulated tables."""
    entry = read_study(ROOT / "studies" / "demo.yaml").sites[0]
    assert entry.simulate is not None
    folders = {}
    for number, name in enumerate(plan.roster):
        folder = folders[name] = root / name
        simulate(entry.simulate.model_copy(update={"patients": patients, "seed": number + 1}), folder / "raw")
        values = {"site": name, "config": str(ROOT / "site_configs" / "mimic3"), "data": str(folder / "raw")}
        (folder / "site.json").write_text(json.dumps(values), encoding="utf-8")
    return folders


def peers_overhead(
    request: Envelope, reply: Envelope, plan: StudyPlan, known: Known, *, peers: int, seconds: float
) -> dict[str, float]:
    """The shares of making the masked vectors alone, with so many peers; the best of three."""
    whole = form_of(request, plan=plan, known=known)
    counted = TrainRequest.unpack(request).model_copy(update={"epochs": 0}).pack(request.arrays)
    bare = Envelope(
        kind=reply.kind, fields=reply.fields, arrays={name: reply.arrays[name] for name in ("soft", "hard")}
    )
    keys = keys_of(peers, plan=plan)
    return {
        "statistics": masking_seconds(form_of(counted, plan=plan, known=known), bare, keys) / seconds,
        "weights": masking_seconds(whole, reply, keys) / seconds,
    }


def masking_seconds(form: Form, reply: Envelope, keys: PairKeys) -> float:
    """Seconds to take a reply apart and mask it."""
    found = []
    for _ in range(3):
        started = time.perf_counter()
        _, arrays = taken_apart(form, reply)
        vector = form.schema.vector(arrays, patients=int(arrays["patients"]))
        masked(vector, keys, label=label_of(form, run="00" * 32, epoch=0))
        found.append(time.perf_counter() - started)
    return min(found)


def keys_of(peers: int, *, plan: StudyPlan) -> PairKeys:
    """The keys of a site with so many peers."""
    names = [SiteId(f"s{number:02d}") for number in range(peers + 1)]
    identities = {name: Identity(key=Ed25519PrivateKey.generate()) for name in names}
    members = tuple(Member(site=name, public_key=identities[name].public.hex()) for name in names)
    roster = Roster(plan_sha256=plan_sha256(plan), minimum_sites=2, members=members)
    private = {name: X25519PrivateKey.generate() for name in names}
    run = "00" * 32
    announced = [announce(private[n], site=n, run=run, roster=roster, identity=identities[n]) for n in names]
    return pair_keys(private[names[0]], announced, site=names[0], roster=roster, run=run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer patients and rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sites", type=int, default=3)
    options = parser.parse_args()
    found = measure(sites=options.sites, patients=400 if options.quick else 3000, rounds=1 if options.quick else 2)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:22} {np.round(value, 4) if isinstance(value, float) else value}")


if __name__ == "__main__":
    main()
