"""Small studies to be killed: how each is begun or gone on with, and what may be found in its folders.

A study is made once, as a template; every injection has a copy. Sites are asked in the server's process, or each in a
process of its own, which may die while the server lives.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "federation")]

from federation_real import WORK, Local, approve, make_sites, real_plan  # noqa: E402
from federation_toys import InProcess, toy_plan, toy_sites  # noqa: E402
from masked_toys import MaskedToySite, masked_plan, masked_sites  # noqa: E402
from resumed import digest  # noqa: E402
from safetensors.numpy import load, save  # noqa: E402

from fairsynth.config import (  # noqa: E402
    AuditConfig,
    AugmentationConfig,
    NoiseConfig,
    PrivacyConfig,
    StudyPlan,
    TrainingConfig,
    VocabularyConfig,
)
from fairsynth.federation import boundary  # noqa: E402
from fairsynth.federation.masking.local import sign_here  # noqa: E402
from fairsynth.federation.messages import Envelope  # noqa: E402
from fairsynth.federation.rounds import run_study  # noqa: E402
from fairsynth.governance import ledger  # noqa: E402

ASKED, SENT = "asked.jsonl", "sent.jsonl"  # what was asked and what left, as a witness beside the folders saw it
DEADLINE, SHORT = 240, 40  # seconds of a round in a deployment, and in one that is to be missed
TRAINING = TrainingConfig(rounds=1, local_epochs=1, round_deadline_seconds=5)
Site = Callable[[Envelope], Envelope | None]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One study: its plan, its folders, its sites."""

    name: str
    plan: StudyPlan
    prepare: Callable[[Path, StudyPlan], None]
    sites: Callable[[Path, StudyPlan], Mapping[str, Site]]

    def run(self, root: Path, *, resume: bool, spawn: Spawn | None = None) -> None:
        """The study under `root`, in this process; with `spawn`, each answer in a process of its own."""
        transport = Witnessed(root, InProcess(self.sites(root, self.plan)), spawn=spawn)
        run_study(transport, plan=self.plan, root=root / "server", resume=resume)


def plain_prepared(root: Path, plan: StudyPlan) -> None:
    (root / "server").mkdir(parents=True)


def toys(root: Path, plan: StudyPlan) -> Mapping[str, Site]:
    return toy_sites(plan)


def masked_prepared(root: Path, plan: StudyPlan) -> None:
    masked_sites(root, plan, toy_sites(plan))


def masked_toys_of(root: Path, plan: StudyPlan) -> Mapping[str, Site]:
    return {site: MaskedToySite(root / site, toy) for site, toy in toy_sites(plan).items()}


def real_prepared(root: Path, plan: StudyPlan) -> None:
    """Tables and configuration stay in the template; approvals are given there, once."""
    folders = make_sites(root, plan, patients=900 if plan.privacy.noised else 220)
    approve(folders.values(), plan)
    sign_here(plan, folders, server=root / "server")


def real_sites(root: Path, plan: StudyPlan) -> Mapping[str, Site]:
    def site(folder: Path, request: Envelope) -> Envelope:
        work = partial(Local.work, WORK[request.kind])
        return boundary.answer(lambda: folder, lambda: request, work, phase=request.kind)

    return {name: partial(site, root / name) for name in plan.roster}


def kinds() -> dict[str, Kind]:
    """Plain and masked toys, the latter with a teacher too; real sites, masked, and under noise."""
    taught = AugmentationConfig(synthetic_patients=10, candidates="taught")
    two = AuditConfig(predictors=("logistic_regression",), seeds=1)
    pair = PrivacyConfig(agreement="faults", minimum_contributing=1)
    training = {"local_epochs": 1, "batch_size": 32, "round_deadline_seconds": 300}
    noise = PrivacyConfig(profile="noise", epsilon=10.0, noise=NoiseConfig(counts_share=0.6, batch_share=0.2, steps=2))
    noised = real_plan(
        privacy=noise,
        training=TrainingConfig(rounds=1, round_deadline_seconds=300),
        vocabulary=VocabularyConfig(minimum_patients=11, maximum_codes=120),
    )
    deployed, short = (
        real_plan(privacy=pair, audit=two, training=TrainingConfig(rounds=rounds, **{**training, **deadline}))
        for rounds, deadline in (
            (2, {"round_deadline_seconds": DEADLINE}),
            (1, {"round_deadline_seconds": SHORT}),
        )
    )
    real = real_plan(privacy=pair, audit=two, training=TrainingConfig(rounds=2, **training))
    found = (
        Kind(name="plain", plan=toy_plan(training=TRAINING), prepare=plain_prepared, sites=toys),
        Kind(name="masked", plan=masked_plan(training=TRAINING), prepare=masked_prepared, sites=masked_toys_of),
        Kind(
            name="taught",
            plan=masked_plan(training=TRAINING, augmentation=taught),
            prepare=masked_prepared,
            sites=masked_toys_of,
        ),
        Kind(name="real", plan=real, prepare=real_prepared, sites=real_sites),
        Kind(name="deployed", plan=deployed, prepare=real_prepared, sites=real_sites),
        Kind(name="short", plan=short, prepare=real_prepared, sites=real_sites),
        Kind(name="noised", plan=noised, prepare=real_prepared, sites=real_sites),
    )
    return {one.name: one for one in found}


def copied(template: Path, to: Path) -> None:
    """A study's folders as they were before it began, raw tables aside."""
    shutil.copytree(template, to, ignore=shutil.ignore_patterns("raw", "configs"))


# --- sites in processes of their own ---------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Spawn:
    """Starts a process an answer; `begin` is called in it first, and may arrange its death. `died` counts deaths."""

    begin: Callable[[str], None]
    died: list[str] = field(default_factory=list)

    def ask(self, name: str, site: Site, request: Envelope) -> Envelope | None:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(reader)
                self.begin(name)
                reply = site(request)
                with os.fdopen(writer, "wb") as out:
                    out.write(packed(reply) if reply else b"")
                os._exit(0)
            except BaseException:  # noqa: BLE001  whatever it is, this process is a copy of the server's and must end
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            content = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            self.died.append(request.kind)
            return None
        assert os.waitstatus_to_exitcode(status) == 0, f"{name} failed at {request.kind}"
        return unpacked(content) if content else None


def packed(envelope: Envelope) -> bytes:
    head = json.dumps({"kind": envelope.kind, "fields": envelope.fields}).encode()
    return len(head).to_bytes(8, "little") + head + save(dict(envelope.arrays))


def unpacked(content: bytes) -> Envelope:
    end = 8 + int.from_bytes(content[:8], "little")
    arrays = load(content[end:])
    return Envelope(**json.loads(content[8:end]), arrays={name: arrays[name] for name in sorted(arrays)})


class Witnessed:
    """A transport that writes down, outside of what is killed, what was asked and the hash of what left."""

    def __init__(self, root: Path, transport: InProcess, *, spawn: Spawn | None) -> None:
        self.root, self.transport = root, transport
        sites = {name: partial(self._answered, name, site, spawn) for name, site in transport.sites.items()}
        self.transport = InProcess(sites)

    def ask(self, requests, *, timeout):
        kept = {}
        for request in requests.values():
            fields = json.loads(request.fields)
            kept = {"kind": request.kind, "arm": fields.get("arm"), "round": fields.get("round")}
        note(self.root / ASKED, {**kept, "sites": sorted(requests)})
        return self.transport.ask(requests, timeout=timeout)

    def _answered(self, name: str, site: Site, spawn: Spawn | None, request: Envelope) -> Envelope | None:
        reply = spawn.ask(name, site, request) if spawn else site(request)
        if reply is not None and reply.kind == "sealed":
            fields = json.loads(reply.fields)
            label = "|".join(str(fields[part]) for part in ("run", "epoch", "purpose"))
            digest = boundary.Outgoing(
                kind=reply.kind, text=reply.fields, arrays=reply.arrays, site="", study="", label="", cohort=""
            ).sha256
            note(self.root / SENT, {"site": name, "label": label, "sha256": digest})
        return reply


def note(path: Path, line: dict) -> None:
    """Appended in one call, past the hooks that count."""
    descriptor = WITNESS(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, json.dumps(line).encode() + b"\n")
    os.close(descriptor)


WITNESS = os.open


def noted(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


# --- what must hold --------------------------------------------------------------------------------------------------


def committed(root: Path) -> set[tuple[str, int]]:
    """Arm and number of the requests whose rounds are committed."""
    found = (path.name.rpartition("-") for path in (root / "server" / "rounds").glob("[a-z]*-*"))
    return {(arm, int(number) - 1) for arm, _, number in found}


def result(root: Path) -> dict:
    """What must be the same however often the study was killed: results, labels sent, what the ledgers say."""
    sites = {}
    for folder in sorted(path.parent for path in root.glob("*/ledger.jsonl")):
        entries = ledger.read(folder)
        sites[folder.name] = {
            "approvals": sum(entry.event == "approved" for entry in entries),
            "epsilon": round(sum(entry.epsilon or 0.0 for entry in entries), 9),
            "released": sorted(name_of(entry.label) for entry in entries if entry.event == "released"),
        }
    labels = {(one["site"], one["label"].split("|", 1)[1]) for one in noted(root / SENT)}
    return {"digest": digest(root / "server"), "ledgers": sites, "labels": sorted(map(list, labels))}


def name_of(label: str) -> str:
    """A ledger's label without the run's random name and the hash that depends on it."""
    return "/".join(part for part in label.split("/") if len(part) not in (16, 64))


def broken(root: Path) -> list[str]:
    """Promises that one study's folders break, whatever its results."""
    problems = []
    seen: dict[tuple[str, str], str] = {}
    for one in noted(root / SENT):
        if seen.setdefault((one["site"], one["label"]), one["sha256"]) != one["sha256"]:
            problems.append(  # noqa: PERF401  a set is filled on the way
                f"two payloads under {one['label']} of {one['site']}"
            )
    for path in root.glob("*/masking/outbox.jsonl"):
        labels = [json.loads(line)["label"] for line in path.read_text().splitlines()]
        if len(labels) != len(set(labels)):
            problems.append(f"a label twice in the outbox of {path.parent.parent.name}")
    faults = {path.parent.name: ledger.find_fault(path.parent) for path in root.glob("*/ledger.jsonl")}
    return problems + [f"ledger of {site}: {fault.what}" for site, fault in faults.items() if fault]
