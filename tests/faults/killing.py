"""The driver of injections without Flower: a process that forks a child for every study, kills it, and looks.

Started as a program, so that it is alone with its threads: it imports everything once and never works itself (a pool of
threads does not survive a fork). Prints one JSON object an injection, then a summary.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from writes import MODES, Writes

from studies import ASKED, Kind, Spawn, broken, committed, copied, kinds, noted, result

KILLED = "killed"
RESTARTS = 60  # at most, of one study that is killed again and again


@dataclass(kw_only=True)
class Injection:
    """What one fault did."""

    study: str
    victim: str  # all: server and sites; sites: one site's process
    at: int
    mode: str
    place: str = ""
    kills: int = 0
    restarts: int = 0
    closed: str = ""  # how it failed, where it did, before it was begun again
    seconds: float = 0.0  # from the last restart to the first new committed round or exchange, or the end
    problems: list[str] = field(default_factory=list)


def in_child(work: Callable[[], None]) -> str:
    """Run `work` in a fork: empty when it ended well, `KILLED`, or type and text of its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        code = 0
        try:
            work()
        except BaseException as error:  # noqa: BLE001  this is a copy of the driver and must end here
            text = f"{type(error).__name__}: {error}"
            if os.environ.get("FAULTS_TRACE"):
                text = "".join(traceback.format_exception(error))
            os.write(writer, text.encode()[:4000])
            code = 1
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return KILLED
    return said or ("" if os.waitstatus_to_exitcode(status) == 0 else "ended badly")


class Driver:
    """One kind of study, its template and its golden result, under `work`."""

    def __init__(self, kind: Kind, work: Path) -> None:
        self.kind, self.work = kind, work
        self.template = work / kind.name
        self._must(lambda: kind.prepare(self.template, kind.plan))
        self.golden: dict = {}
        self.places: dict[str, list[str]] = {}

    def measure(self) -> None:
        """The result without faults, and all places at which the whole study or its sites write."""
        root = self.work / f"{self.kind.name}-golden"
        copied(self.template, root)
        told = self.work / f"{self.kind.name}.json"

        def work() -> None:
            counted = Writes(root).install()
            self.kind.run(root, resume=False)
            places = [place.replace(str(root), "") for place in counted.places]
            told.write_text(json.dumps({"golden": result(root), "places": places, "broken": broken(root)}))

        self._must(work)
        found = json.loads(told.read_text())
        assert not found["broken"], found["broken"]
        self.golden = found["golden"]
        if self.kind.plan.privacy.noised:  # noise is new in every study: what was told, and charged, must be the same
            self.golden["digest"] = {}
        self.places = {
            "all": found["places"],
            "sites": [place for place in found["places"] if "/server" not in place and " /" in place],
        }
        shutil.rmtree(root)

    def _must(self, work: Callable[[], None]) -> None:
        if said := in_child(work):
            raise SystemExit(f"{self.kind.name}: {said}")

    def inject(self, injection: Injection, rng: random.Random) -> Injection:
        """Begin a copy, kill it as the injection says, go on with it, and look for broken promises."""
        root = Path(tempfile.mkdtemp(dir=self.work, prefix="injection-")) / "study"
        copied(self.template, root)
        try:
            run = self._whole if injection.victim == "all" else self._site
            run(root, injection, rng)
            self._look(root, injection)
        finally:
            shutil.rmtree(root.parent)
        return injection

    def _whole(self, root: Path, injection: Injection, rng: random.Random) -> None:
        """Server and sites die together, once or again and again; then the study is resumed."""
        again = injection.mode == "again"
        mode = rng.choice(MODES) if again else injection.mode

        def begin(resume: bool, at: int, mode: str) -> str:
            def work() -> None:
                Writes(root, at=at, mode=mode).install()
                self.kind.run(root, resume=resume)

            return in_child(work)

        said = begin(False, injection.at, mode)
        while said == KILLED and injection.restarts < RESTARTS:
            injection.kills += 1
            injection.restarts += 1
            at = rng.randrange(1, 90) if again and injection.restarts < RESTARTS - 5 else 0
            said = self._resumed(root, injection, lambda resume, at=at: begin(resume, at, rng.choice(MODES)))
        if said:
            injection.problems.append(f"not resumed: {said}")

    def _site(self, root: Path, injection: Injection, rng: random.Random) -> None:
        """The process of the site that answers dies; the server asks again, or fails and is resumed."""
        shared = memoryview(mmap.mmap(-1, 8)).cast("Q")
        mode = rng.choice(MODES) if injection.mode == "again" else injection.mode
        step = 97 if injection.mode == "again" else 0

        def begin(resume: bool) -> str:
            spawn = Spawn(begin=lambda name: self._doomed(root / name, injection, mode, shared, step))
            return in_child(lambda: self.kind.run(root, resume=resume, spawn=spawn))

        said = begin(False)
        while said and injection.restarts < RESTARTS:
            injection.restarts += 1
            injection.closed = injection.closed or said
            said = self._resumed(root, injection, begin)
        injection.kills = 1 if shared[0] >= injection.at else 0
        if said:
            injection.problems.append(f"not resumed: {said}")

    def _doomed(self, root: Path, injection: Injection, mode: str, shared, step: int) -> None:
        at = injection.at
        if step and shared[0] >= at:  # again and again: the next one
            at += step * ((shared[0] - at) // step + 1)
        Writes(root, at=at, mode=mode, number=shared).install()

    def _resumed(self, root: Path, injection: Injection, begin: Callable[[bool], str]) -> str:
        """Go on with the study, and see that no committed round is asked again; begin it anew where it never began."""
        before, asked = committed(root), len(noted(root / ASKED))
        started = time.monotonic()
        said = begin(True)
        if said.startswith("ConfigError: FS-100 no study to resume"):
            injection.closed = "no study to resume: begun anew"
            said = begin(False)
        injection.seconds = time.monotonic() - started
        for one in noted(root / ASKED)[asked:]:
            if one["kind"] == "train" and (one["arm"], one["round"]) in before:
                injection.problems.append(f"committed round asked again: {one['arm']} {one['round']}")
        return said

    def _look(self, root: Path, injection: Injection) -> None:
        if not injection.problems:
            said = in_child(lambda: check(root, self.golden))
            if said:
                injection.problems.append(said)


def check(root: Path, golden: dict) -> None:
    """Raise AssertionError unless the study's result is the golden one and no promise is broken."""
    problems = broken(root)
    found = json.loads(json.dumps(result(root)))
    differing = [name for name in golden["digest"] if found["digest"].get(name) != golden["digest"][name]]
    if golden["digest"] and (differing or set(found["digest"]) != set(golden["digest"])):
        problems.append(f"another result: {differing or 'other files'}")
    problems += [f"another {name}" for name in ("ledgers", "labels") if found[name] != golden[name]]
    if problems:
        raise AssertionError("; ".join(problems))


def points(number: int, wanted: str, rng: random.Random) -> list[int]:
    """All points, every n-th (`every:n`), or so many at random."""
    every = range(1, number + 1)
    if wanted == "all":
        return list(every)
    if wanted.startswith("every:"):
        return list(every)[:: int(wanted.removeprefix("every:"))]
    return sorted(rng.sample(every, min(int(wanted), number)))


def injections(driver: Driver, victim: str, wanted: str, modes: list[str], rng: random.Random) -> Iterator[Injection]:
    places = driver.places[victim]
    for at in points(len(places), wanted, rng):
        for mode in modes if modes != ["any"] else [rng.choice(MODES)]:
            yield Injection(study=driver.kind.name, victim=victim, at=at, mode=mode, place=places[at - 1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--study", required=True, choices=list(kinds()))
    parser.add_argument("--victim", default="all", choices=["all", "sites"])
    parser.add_argument("--points", default="20")
    parser.add_argument("--modes", default="any")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="no new injection after so many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        driver = Driver(kinds()[options.study], Path(folder))
        driver.measure()
        counts = {name: len(places) for name, places in driver.places.items()}
        print(json.dumps({"study": options.study, "write_points": counts}), flush=True)
        ends = time.monotonic() + options.seconds
        for one in injections(driver, options.victim, options.points, options.modes.split(","), rng):
            if time.monotonic() > ends:
                break
            print(json.dumps(asdict(driver.inject(one, rng))), flush=True)


if __name__ == "__main__":
    sys.exit(main())
