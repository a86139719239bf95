"""A deployment to break: SuperLink, SuperNodes and SuperExecs as `engine.deployment` starts them, on loopback, with
TLS and registered keys, each SuperNode behind a proxy, each process within reach of a signal.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from wire import Wire

from fairsynth import artefacts
from fairsynth.errors import EngineError
from fairsynth.federation import journal
from fairsynth.federation.engine import Site
from fairsynth.federation.engine import deployment as engine
from fairsynth.federation.engine.processes import LOOPBACK, Workshop, free_ports, listens, parse_answer, wait_for
from fairsynth.federation.engine.study import SUPERLINK as CONNECTION
from fairsynth.federation.engine.study import open_job, run_status, submit
from fairsynth.provisioning.authority import create_authority, write_server
from studies import Kind, copied

ROOT = Path(__file__).resolve().parents[2]
HOOKS = Path(__file__).resolve().parent / "hooks"
SUPERLINK = "superlink"
RESTART = 10.0  # seconds after which a site's process that ended is started again, as its service would be


class Room(Workshop):
    """A workshop whose processes may fail on order, and which knows its SuperNodes by the names it registered."""

    extra: dict[str, str] = {}
    nodes: dict[str, str] = {}  # site -> node id; `flwr supernode list` tells ids alone
    own = threading.local()

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self.extra, **getattr(self.own, "extra", {})}

    @contextlib.contextmanager
    def clocked(self, site: str) -> Iterator[None]:
        """What this thread starts has the site's clock."""
        self.own.extra = {"FAULT_CLOCK": str(self.home / f"{site}.clock")}
        try:
            yield
        finally:
            self.own.extra = {}

    def call(self, *command: str, seconds: float = 60.0) -> str:
        answer = super().call(*command, seconds=seconds)
        if "register" in command:
            self.nodes[command[command.index("--name") + 1]] = str(parse_answer(answer)["node-id"])
        return answer

    def start(self, *command: str, log: str) -> subprocess.Popen[bytes]:
        """As the units do: a SuperNode ends when it gives up."""
        if command[0] == "flower-supernode":
            command = (sys.executable, "-P", "-m", "fairsynth.operations.ending", *command)
        return super().start(*command, log=log)

    def last(self, program: str) -> subprocess.Popen[bytes]:
        """The process of this program that was started last."""
        return next(one for one in reversed(self._running) if program in one.args)


class World:
    """One deployment and the studies that run in it; use as a context manager."""

    def __init__(self, kind: Kind, template: Path, root: Path) -> None:
        self.kind, self.root = kind, root
        copied(template, root)
        self.orders = root / "orders"
        self.orders.mkdir()
        (root / "plan.json").write_text(kind.plan.model_dump_json(by_alias=True))
        self.workdir = root / "server"
        self.wires: dict[str, Wire] = {}
        self.node_ports: dict[str, int] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}  # superlink, server, site-a, site-a/exec, ...
        self.alone: set[str] = set()  # sites that nobody starts again
        self._stack = contextlib.ExitStack()
        self._leaving = threading.Event()

    def __enter__(self) -> World:
        self.room = self._stack.enter_context(Room(threads=1))
        self.room.extra = {"PYTHONPATH": str(HOOKS), "FAULTS": str(self.orders)}
        for site in self.kind.plan.roster:  # before ports are chosen that are free
            self.wires[site] = self._stack.enter_context(Wire())
        self.port, *ports = free_ports(1 + len(self.kind.plan.roster))
        write_server(self.room.home, create_authority("faults", days=7), names=[LOOPBACK], days=7)
        engine._start_superlink(self.room, self.port)
        self.processes |= {SUPERLINK: self.room.last("flower-superlink"), "server": self.room.last("flower-superexec")}
        for site, port in zip(self.kind.plan.roster, ports, strict=True):
            self.wires[site].target = self.port
            self.node_ports[site] = port
            self.start_site(site)
        keeper = threading.Thread(target=self._keep, daemon=True)
        keeper.start()
        self._stack.callback(keeper.join)
        self._stack.callback(self._leaving.set)
        return self

    def __exit__(self, *told: object) -> None:
        self._stack.__exit__(None, None, None)

    def start_site(self, site: str) -> None:
        folder = Site(site=site, folder=self.root / site)
        with self.room.clocked(site):
            engine._start_supernode(self.room, folder, superlink=self.wires[site].port, port=self.node_ports[site])
        node, execute = self.room.last("flower-supernode"), self.room.last("flower-superexec")
        self.processes |= {site: node, f"{site}/exec": execute}

    def _keep(self) -> None:
        """Start a site's processes again when they end: Flower's SuperNode ends on an error in a TLS handshake."""
        ended: dict[str, float] = {}
        while not self._leaving.wait(0.5):
            for name, process in list(self.processes.items()):
                site = name.partition("/")[0]
                if site in (SUPERLINK, "server") or site in self.alone or process.poll() is None:
                    continue
                if time.monotonic() - ended.setdefault(name, time.monotonic()) > RESTART:
                    del ended[name]
                    self.again(name)

    # --- faults

    def order(self, place: str, what: str = "kill") -> None:
        """The next process that comes to `place` does `what`."""
        (self.orders / place).write_text(what)

    def done(self) -> list[str]:
        """The orders that were carried out."""
        path = self.orders / "done"
        return path.read_text().splitlines() if path.is_file() else []

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL, *, group: bool = True) -> None:
        """Signal a process, with `group` what it started too."""
        process = self.processes[name]
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(process.pid, number)
            else:
                os.kill(process.pid, number)
        process.wait(timeout=60)

    def again(self, name: str, **changes: str) -> None:
        """Start a process as it was started; `changes` replaces options, such as `database`."""
        command = [
            next((f"--{key}={value}" for key, value in changes.items() if str(one).startswith(f"--{key}=")), str(one))
            for one in self.processes[name].args
        ]
        with self.room.clocked(name.partition("/")[0]):
            self.processes[name] = self.room.start(*command, log=f"{name.replace('/', '-')}.again.log")

    def clock(self, site: str, seconds: float) -> None:
        """From now on the clock of a site's processes is so much ahead."""
        artefacts.write_text(self.room.home / f"{site}.clock", str(seconds))

    def online(self, site: str) -> bool:
        """Whether the SuperLink counts the site's SuperNode as online."""
        answer = parse_answer(self.room.call("flwr", "supernode", "list", CONNECTION, "--format", "json"))
        return (self.room.nodes[site], "online") in [(one["node-id"], one["status"]) for one in answer["nodes"]]

    def wait_superlink(self) -> None:
        wait_for(lambda: listens(self.port), seconds=60, what="SuperLink", process=self.processes[SUPERLINK])

    # --- studies

    def submit(self, *, resume: bool = False) -> str:
        sites = [Site(site=site, folder=self.root / site) for site in self.kind.plan.roster]
        job = open_job(
            ROOT,
            plan=self.root / "plan.json",
            workdir=self.workdir,
            sites=sites,
            on_event=lambda _: None,
            resume=resume,
        )
        return submit(self.room, job)

    def status(self, run: str) -> tuple[str, str]:
        with contextlib.suppress(EngineError):
            return run_status(self.room, run)
        return "unknown", ""

    def events(self) -> list[dict]:
        """The journal, as far as it can be read while it is written."""
        return list(journal.scan(self.workdir / "journal.jsonl").events)

    def until(self, ready: Callable[[], bool], *, seconds: float) -> bool:
        """Whether `ready` came true in time."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if ready():
                return True
            time.sleep(0.1)
        return False

    def progress(self) -> int:
        """How much is kept: committed rounds and exchanges, and the end."""
        rounds = sum(event["event"] == "round" for event in self.events())
        return rounds + len(list(self.workdir.glob("exchanges/exchange-*"))) + 1000 * self.is_over

    @property
    def is_over(self) -> bool:
        events = self.events()
        return bool(events) and events[-1]["event"] == "finished"

    def ended(self, run: str, *, seconds: float) -> str:
        """Wait for the end of a run: `finished`, `failed: ...` of the journal, Flower's status, or `too late`."""
        ends, asked = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < ends:
            events = self.events()
            last = events[-1] if events else {"event": ""}
            if last["event"] == "finished":
                return "finished"
            if last["event"] == "failed":
                return "failed: " + "; ".join(f"{one['what']}, {one['where']}" for one in last["problems"])
            if time.monotonic() - asked > 10:
                status, details = self.status(run)
                if status.startswith("finished"):
                    return f"{status} {details}"
                asked = time.monotonic()
            time.sleep(0.2)
        return "too late"


@contextlib.contextmanager
def world(kind: Kind, template: Path, root: Path) -> Iterator[World]:
    """A world in a folder that is gone afterwards; its logs stay where FAULTS_LOGS says."""
    one = World(kind, template, root)
    try:
        with one:
            try:
                yield one
            finally:
                if kept := os.environ.get("FAULTS_LOGS"):
                    target = Path(kept) / f"{root.name}-{time.time():.0f}"
                    shutil.copytree(one.room.home, target, ignore=shutil.ignore_patterns("apps", "*.key", "*.secret"))
                    for log in root.glob("*/site.log"):
                        shutil.copyfile(log, target / f"{log.parent.name}.site.log")
                    if (one.workdir / "journal.jsonl").is_file():
                        shutil.copyfile(one.workdir / "journal.jsonl", target / "journal.jsonl")
    finally:
        shutil.rmtree(root, ignore_errors=True)
