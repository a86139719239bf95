"""Faults in a deployment: real processes, TLS, a wire that breaks. Each case is a study that must end as it would have.

Started as a program: `python networked.py --case NAME`; one JSON line a fault. It forks to run the golden study, so it
is alone with its threads until the world begins.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from killing import Driver
from world import SUPERLINK, World, world

from fairsynth import artefacts
from fairsynth.errors import EngineError
from fairsynth.federation.engine.processes import LOOPBACK
from fairsynth.federation.engine.study import SUPERLINK as CONNECTION
from studies import broken, kinds, result

LONG = 900.0  # seconds that a study may take here, faults and a busy machine included
STEP = 400.0  # seconds to the next committed round or exchange


class Case:
    """One study in one world; tells each fault as it goes."""

    def __init__(self, name: str, driver: Driver, root: Path) -> None:
        self.name, self.driver, self.root = name, driver, root

    def tell(self, case: str, fault: str, *, seconds: float | None = None, closed: str = "", problems=()) -> None:
        line = {"case": case, "fault": fault, "seconds": seconds, "closed": closed, "problems": list(problems)}
        print(json.dumps(line), flush=True)

    def same(self, w: World, case: str, fault: str, ended: str) -> None:
        """The study ended as it would have without faults."""
        problems = [] if ended == "finished" else [ended]
        if ended == "finished":
            found, golden = json.loads(json.dumps(result(w.root))), self.driver.golden
            for ledger in found["ledgers"].values():  # word of a failure leaves the site too, and has its line
                ledger["released"] = [label for label in ledger["released"] if label != "failed"]
            for kind in ("digest", "ledgers"):
                names = sorted({*found[kind], *golden[kind]})
                problems += [f"another {kind}: {one}" for one in names if found[kind].get(one) != golden[kind].get(one)]
        self.tell(case, f"{fault}: the end", problems=problems + broken(w.root))

    def recovered(self, w: World, case: str, fault: str, *, since: float, progress: int) -> None:
        """Wait for the first new committed round or exchange after a fault."""
        came = w.until(lambda: w.progress() > progress, seconds=STEP)
        self.tell(case, fault, seconds=round(time.monotonic() - since, 1), problems=[] if came else ["no progress"])

    def struck(self, w: World, place: str, what: str = "kill") -> tuple[float, int]:
        """Order a fault and wait until it was done: when, and what was kept by then."""
        before = len(w.done())
        w.order(place, what)
        if not w.until(lambda: len(w.done()) > before or w.is_over, seconds=STEP) or len(w.done()) == before:
            raise EngineError.of(f"no process came to {place}", where=self.name)
        return time.monotonic(), w.progress()


def ready(w: World, rounds: int = 0) -> None:
    """Wait until so many rounds are committed, or the first exchange where none are wanted."""
    kept = "rounds/[a-z]*-*" if rounds else "exchanges/exchange-*"
    w.until(lambda: len(list(w.workdir.glob(kept))) >= max(rounds, 1), seconds=STEP)


def site_process(case: Case, w: World) -> None:
    """F1, F2: the process that answers dies at five places."""
    run = w.submit()
    for name, place in (
        ("F1", "train-asked"),
        ("F1", "train-measured"),
        ("F1", "train-trained"),
        ("F2", "outbox-kept"),
        ("F2", "answered"),
    ):
        since, progress = case.struck(w, place)
        case.recovered(w, name, f"ClientApp killed at {place}", since=since, progress=progress)
    case.same(w, "F1", "five kills", w.ended(run, seconds=LONG))


def server_process(case: Case, w: World) -> None:
    """F3: the ServerApp dies at four places; F22: it is asked to leave. Each time a new run goes on."""
    run = w.submit()
    for place in ("collected-one", "commit-asked", "commit-written", "commit-named"):
        since, progress = case.struck(w, place)
        run = w.submit(resume=True)
        case.recovered(w, "F3", f"ServerApp killed at {place}", since=since, progress=progress)
    for number in (signal.SIGTERM, signal.SIGINT):
        since, progress = time.monotonic(), w.progress()
        w.kill("server", number)
        w.again("server")
        run = w.submit(resume=True)
        case.recovered(w, "F22", f"{number.name} to the server's processes", since=since, progress=progress)
    case.same(w, "F3", "six restarts", w.ended(run, seconds=LONG))


def superlink(case: Case, w: World) -> None:
    """F4: the SuperLink dies; back with its database, then with an empty one."""
    run = w.submit()
    ready(w)
    since, progress = time.monotonic(), w.progress()
    w.kill(SUPERLINK)
    time.sleep(3)
    w.again(SUPERLINK)
    w.wait_superlink()
    case.recovered(w, "F4", "SuperLink killed, back after 3 s with its database", since=since, progress=progress)
    since, progress = time.monotonic(), w.progress()
    w.alone.update(w.kind.plan.roster)
    for name in (SUPERLINK, "server", *w.kind.plan.roster, *(f"{site}/exec" for site in w.kind.plan.roster)):
        w.kill(name)
    w.again(SUPERLINK, database=str(w.room.home / "new.db"))
    w.wait_superlink()
    w.again("server")
    for site in w.kind.plan.roster:  # who is registered was in the database
        public = w.room.home / f"{site}.pub"
        w.room.call("flwr", "supernode", "register", str(public), CONNECTION, "--name", site, "--format", "json")
        w.again(site)
        w.again(f"{site}/exec")
    w.alone.clear()
    run = w.submit(resume=True)
    case.recovered(w, "F4", "everything killed, database lost, --resume", since=since, progress=progress)
    case.same(w, "F4", "both", w.ended(run, seconds=LONG))


def wires(case: Case, w: World) -> None:
    """F8, F9, F10, F7: the wire of one site breaks for a while; a second server; bytes that are sent again."""
    run = w.submit()
    ready(w)
    wire = w.wires["site-a"]
    said = wire.replay()
    problems = ["answered"] if b"HTTP" in said else []
    problems += [] if len(wire.recorded) > 500 else ["nothing was recorded"]
    closed = f"{len(wire.recorded)} bytes sent again, {len(said)} bytes of TLS came back"
    case.tell("F10", "recorded bytes on a new connection", closed=closed, problems=problems)
    second = w.submit()
    for fault, begin, seconds in (
        ("both ways held 10 s", wire.hold, 10.0),
        ("to the server held 10 s", lambda: wire.hold("up"), 10.0),
        ("from the server held 10 s", lambda: wire.hold("down"), 10.0),
        (
            "cut and mended every 2 s for 20 s",
            lambda: threading.Thread(target=flap, args=(wire, 20), daemon=True).start(),
            20.0,
        ),
        ("both ways held 60 s", wire.hold, 60.0),
    ):
        since = time.monotonic()
        begin()
        time.sleep(seconds)
        progress = w.progress()  # what was under way before may have come in
        wire.release()
        case.recovered(w, "F8", fault, since=since, progress=progress)
    status, details = w.status(second)
    refused = "another server works in this folder" in details
    case.tell(
        "F7",
        "a second run on the folder",
        closed=f"{status}: {details[:120]}",
        problems=[] if refused else ["not refused"],
    )
    since, progress, wire.rate = time.monotonic(), w.progress(), 20_000.0
    case.recovered(w, "F9", "20 kB a second", since=since, progress=progress)
    wire.rate = None
    case.same(w, "F8", "all of them", w.ended(run, seconds=LONG))


def flap(wire, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        wire.cut()
        time.sleep(2)
        wire.mend()
        time.sleep(2)


def slow(case: Case, w: World) -> None:
    """F9: a site that takes long; F17: one that has no memory; F1: a SuperNode that dies."""
    run = w.submit()
    since, progress = case.struck(w, "train-measured", "sleep 60")
    case.recovered(w, "F9", "a site slower by 60 s", since=since, progress=progress)
    case.struck(w, "train-measured", "memory 8")
    ended = w.ended(run, seconds=STEP)
    problems = [] if ended.startswith("failed: 1 of 2 sites") else [f"not closed: {ended}"]
    case.tell("F17", "8 MB to train with", closed=ended, problems=problems)
    since, progress = time.monotonic(), w.progress()
    run = w.submit(resume=True)
    case.recovered(w, "F17", "memory again, --resume", since=since, progress=progress)
    since, progress = case.struck(w, "announced")
    fault = "ClientApp killed while it hands its reply over" + (", its SuperNode restarted" if revived(w) else "")
    case.recovered(w, "F1", fault, since=since, progress=progress)
    since, progress = time.monotonic(), w.progress()
    starved(w, "site-a", seconds=30)
    fault = "700 MB of address space for 30 s" + (", its SuperNode restarted" if revived(w) else "")
    w.until(lambda: w.progress() > progress or w.events()[-1]["event"] == "failed", seconds=STEP)
    if w.events()[-1]["event"] == "failed":
        case.tell("F17", fault, closed=w.ended(run, seconds=1))
        run, fault = w.submit(resume=True), "memory again, --resume"
    case.recovered(w, "F17", fault, since=since, progress=progress)
    since, progress = time.monotonic(), w.progress()
    w.kill("site-b")
    w.kill("site-b/exec")
    fault = "SuperNode and SuperExec killed, started again 10 s after they end"
    case.recovered(w, "F1", fault, since=since, progress=progress)
    case.same(w, "F9", "all of them", w.ended(run, seconds=LONG))


def starved(w: World, site: str, *, seconds: float) -> None:
    """For so long what a site's SuperExec starts has 700 MB of address space, which is too little."""
    w.alone.add(site)
    plain = w.processes[f"{site}/exec"].args
    for command, wait in ((["prlimit", "--as=700000000", *plain], seconds), (plain, 0.0)):
        w.kill(f"{site}/exec")
        w.processes[f"{site}/exec"] = w.room.start(*command, log=f"{site}-memory.log")
        time.sleep(wait)
    w.alone.discard(site)


def revived(w: World) -> str:
    """Restart a SuperNode that waits for the rest of a reply, as docs/runbook.md asks for; which it was."""

    def waits(site: str) -> str:
        logs = [path for path in (w.room.home / f"{site}.log", w.room.home / f"{site}.again.log") if path.is_file()]
        text = max(logs, key=lambda path: path.stat().st_mtime).read_text(errors="replace")
        return text if text.count("Sending:") > text.count("Sent successfully") + text.count("Failed to send") else ""

    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        before = {site: waits(site) for site in w.kind.plan.roster}
        time.sleep(10)
        for site, text in before.items():
            if text and text == waits(site):
                w.kill(site, signal.SIGTERM)
                w.kill(f"{site}/exec", signal.SIGTERM)
                return site
    return ""


def too_long(case: Case, w: World) -> None:
    """F8: a partition beyond the deadline fails closed, and the study goes on when the site is back."""
    run = w.submit()
    ready(w, rounds=1)
    rounds = sorted(path.name for path in w.workdir.glob("rounds/[a-z]*-*"))
    w.wires["site-a"].hold()
    ended = w.ended(run, seconds=LONG)
    problems = [] if ended.startswith("failed: 1 of 2 sites") else [f"not closed: {ended}"]
    kept = sorted(path.name for path in w.workdir.glob("rounds/[a-z]*-*"))
    problems += [] if set(rounds) <= set(kept) else ["a committed round is gone"]
    case.tell("F8", "held beyond the deadline", closed=ended[:160], problems=problems)
    w.wires["site-a"].release()
    since, progress = time.monotonic(), w.progress()
    run = w.submit(resume=True)
    case.recovered(w, "F18", "back, --resume", since=since, progress=progress)
    case.same(w, "F8", "beyond the deadline", w.ended(run, seconds=LONG))


def clocks(case: Case, w: World) -> None:
    """F12: a SuperNode whose clock is wrong: who comes online, what it and `fairsynth doctor` say; then a study in
    which a site's clock is wrong, and steps.
    """
    site = w.kind.plan.roster[0]
    w.alone.add(site)
    join(w, site)
    w.kill(f"{site}/exec", signal.SIGTERM)
    for seconds in (-600, -310, -200, 2, 4, 8, 60, 600):
        w.clock(site, 0)
        w.kill(site, signal.SIGTERM)  # it says good-bye, with a clock that is right
        problems = ["still online"] if w.online(site) else []
        w.clock(site, seconds)
        (w.room.home / f"{site}.again.log").unlink(missing_ok=True)
        w.again(site)
        came = w.until(lambda: w.online(site) or w.processes[site].poll() is not None, seconds=40) and w.online(site)
        refused = not -305 < seconds < 5
        problems += ["online" if came else "not online"] if came == refused else []
        found = doctor(w, site)
        problems += [] if (found["state"] == "failed") == refused else [f"doctor says {found['state']}"]
        problems += [] if found["state"] == "ok" or "NTP" in found["do"] else ["doctor does not name the mend"]
        closed = f"doctor: {found['state']}, {found['said']}"
        closed += "" if came else f"; SuperNode not online, exit code {w.processes[site].poll()}"
        case.tell("F12", f"clock of a SuperNode off by {seconds:+d} s", closed=closed, problems=problems)
    w.clock(site, 0)
    w.kill(site, signal.SIGTERM)
    w.clock(site, -200)
    w.again(site)
    w.again(f"{site}/exec")
    w.alone.clear()
    run = w.submit()
    ready(w)
    for seconds in (4, -200, 600):
        since, progress = time.monotonic(), w.progress()
        w.clock(site, seconds)
        if seconds == 600:  # refused while it is so
            time.sleep(20)
            w.clock(site, 0)
        case.recovered(w, "F12", f"a site's clock steps to {seconds:+d} s in a study", since=since, progress=progress)
    case.same(w, "F12", "wrong clocks", w.ended(run, seconds=LONG))


def join(w: World, site: str) -> None:
    """What provisioning leaves in a site's folder, so that `fairsynth doctor` can look."""
    folder, home = w.root / site, w.room.home
    told = {"schema": "fairsynth.connection/1", "consortium": "faults", "site": site, "host": LOOPBACK, "port": w.port}
    told |= {"granted": "2026-01-01T00:00:00+00:00", "serial": 1}
    artefacts.write_text(folder / "connection.json", json.dumps(told))
    artefacts.write_bytes(folder / "ca.crt", (home / "ca.crt").read_bytes())
    for name, of in (("supernode.key", f"{site}.key"), ("supernode.pub", f"{site}.pub")):
        artefacts.write_bytes(folder / name, (home / of).read_bytes())


def doctor(w: World, site: str) -> dict[str, str]:
    """What `fairsynth doctor` says of the clock, in a process that has the site's clock."""
    with w.room.clocked(site):
        environment = w.room.environment
    command = ["fairsynth", "doctor", str(w.root / site), "--quick", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    if not done.stdout.startswith("{"):
        raise EngineError.of("fairsynth doctor did not answer", where=f"exit code {done.returncode}")
    return next(one for one in json.loads(done.stdout)["findings"] if one["name"] == "clock")


CASES: dict[str, tuple[str, Callable[[Case, World], None]]] = {
    "site_process": ("deployed", site_process),
    "server_process": ("deployed", server_process),
    "superlink": ("deployed", superlink),
    "wires": ("deployed", wires),
    "slow": ("deployed", slow),
    "too_long": ("short", too_long),
    "clocks": ("short", clocks),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True, choices=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    study, work = CASES[options.case]
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        driver = Driver(kinds()[study], Path(folder))
        driver.measure()
        case = Case(options.case, driver, Path(folder))
        try:
            with world(driver.kind, driver.template, Path(folder) / options.case) as w:
                work(case, w)
        except EngineError as error:
            case.tell(options.case, "the harness", problems=[str(error)])


if __name__ == "__main__":
    sys.exit(main())
