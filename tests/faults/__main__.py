"""Faults F1 to F24, injected; the promises that held, and how long it took to go on.

    python -m tests.faults --json build/faults.json                  all: hours on a small machine
    python -m tests.faults --level a --only F6                       one case
    python -m tests.faults --soak 30 --seed 7                        random faults for 30 minutes

Each part is a program of its own (`killing.py`, `folders.py`, `networked.py`). Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent

PROMISES = {
    "F1": "a site's process dies in training: the round completes, the result is the same",
    "F2": "a site's process dies after it wrote its reply down: the same bytes leave, counted once",
    "F3": "the server dies: no committed round is lost, the result is the same",
    "F4": "the SuperLink dies, with or without its database: the study goes on from the journal",
    "F5": "the disk is full: a clear error, then the same result",
    "F6": "a file of the server is damaged: found out or harmless, the same result, or a clear error",
    "F7": "a second server on the folder is refused",
    "F8": "the network breaks: short, the same result; beyond the deadline, no sum is opened",
    "F9": "a slow site or line: the same result within the deadline",
    "F10": "bytes that are sent again are not answered",
    "F12": "a wrong clock is refused, or harmless",
    "F17": "a site without memory: the study goes on when it has some",
    "F18": "too few sites: fails closed, goes on when they are back",
    "F19": "a site leaves for good: fails closed; the others' study shares no label with it",
    "F22": "SIGTERM, SIGINT: the study goes on, the result is the same",
    "F23": "gate or export killed: nothing half is visible, every run is counted",
    "F24": "a folder read-only, closed or removed: a clear error, no loss",
}

# case -> programs; the counts are those of `make faults`
KILLING = {
    "F3": [
        ["--study", "masked", "--points", "all"],
        ["--study", "plain", "--points", "all"],
        ["--study", "masked", "--points", "10", "--modes", "again"],
        ["--study", "taught", "--points", "20"],
        ["--study", "real", "--points", "25"],
        ["--study", "noised", "--points", "25"],
    ],
    "F2": [
        ["--study", "masked", "--victim", "sites", "--points", "100"],
        ["--study", "masked", "--victim", "sites", "--points", "5", "--modes", "again"],
        ["--study", "real", "--victim", "sites", "--points", "25"],
        ["--study", "noised", "--victim", "sites", "--points", "15"],
    ],
}
FOLDERS = ("F5", "F6", "F19", "F23", "F24")
NETWORKED = {
    "site_process": ("F1", "F2"),
    "server_process": ("F3", "F22"),
    "superlink": ("F4",),
    "wires": ("F7", "F8", "F9", "F10"),
    "slow": ("F1", "F9", "F17"),
    "too_long": ("F8", "F18"),
    "clocks": ("F12",),
}


@dataclass(kw_only=True)
class Row:
    """What is told of one case."""

    injections: int = 0
    seconds: list[float] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def programs(level: str, only: str | None) -> Iterator[tuple[str, list[str]]]:
    if level in ("a", "all"):
        for case, options in KILLING.items():
            yield from ((case, ["killing.py", *one]) for one in options if only in (None, case))
        yield from ((case, ["folders.py", "--case", case]) for case in FOLDERS if only in (None, case))
    if level in ("b", "all"):
        for name, cases in NETWORKED.items():
            if only is None or only in cases:
                yield cases[0], ["networked.py", "--case", name]


def lines(command: list[str], *, seconds: float | None = None) -> Iterator[dict]:
    """What a program tells, line by line; its failure is a line too."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    program = [sys.executable, str(HERE / command[0]), *command[1:]]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE.parents[1]) as process:
        try:
            for line in process.stdout or ():
                yield json.loads(line)
            code = process.wait(timeout=seconds)
        finally:
            process.terminate()
    if code:
        yield {"fault": " ".join(command), "problems": [f"the harness ended with {code}"]}


def take(rows: dict[str, Row], case: str, line: dict) -> None:
    if "problems" not in line:
        return
    if line.get("at") and not line.get("kills"):
        return  # the study ended before that write
    row = rows[line.get("case", case)]
    end = str(line.get("fault", "")).endswith("the end")
    row.injections += 0 if end else max(int(line.get("kills", 1)), 1)
    row.problems += [f"{line.get('fault') or line.get('place')}: {one}" for one in line["problems"]]
    if line.get("seconds") and not end:
        row.seconds.append(float(line["seconds"]))
    if line.get("closed"):
        row.closed.add(str(line["closed"]).split(":", 1)[0].split("\n")[0][:60])


def table(rows: dict[str, Row]) -> str:
    head = f"{'case':5} {'injections':>10} {'violations':>10} {'p50 s':>7} {'p95 s':>7} {'max s':>7}  promise"
    told = [head]
    for case in sorted(rows, key=lambda name: (len(name), name)):
        row = rows[case]
        times = sorted(row.seconds)
        shown = (statistics.median(times), times[int(0.95 * (len(times) - 1))], times[-1]) if times else ("-",) * 3
        figures = " ".join(f"{one:7.1f}" if isinstance(one, float) else f"{one:>7}" for one in shown)
        told.append(f"{case:5} {row.injections:10} {len(row.problems):10} {figures}  {PROMISES.get(case, case)}")
        told += [f"      ! {problem[:200]}" for problem in row.problems[:5]]
    return "\n".join(told)


def soak(minutes: float, seed: int) -> Iterator[tuple[str, dict]]:
    """Random injections without Flower, and of folders, until the time is up; each program starts with its own seed."""
    rng = random.Random(seed)
    ends = time.monotonic() + 60 * minutes
    while (left := ends - time.monotonic()) > 0:
        chosen = str(rng.randrange(1 << 30))
        study = rng.choice(["masked", "masked", "taught", "plain", "real", "noised"])
        killing = ["killing.py", "--study", study, "--victim", rng.choice(["all", "all", "sites"])]
        if killing[2] == "plain":
            killing[-1] = "all"
        killing += ["--points", "6", "--modes", rng.choice(["any", "any", "again"]), "--seconds", f"{left:.0f}"]
        folders = ["folders.py", "--case", rng.choice(["F5", "F6", "F19", "F24"]), "--number", "8"]
        command = [*rng.choice([killing, killing, folders]), "--seed", chosen]
        case = command[2] if command[0] == "folders.py" else ("F2" if "sites" in command else "F3")
        yield from ((case, line) for line in lines(command))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--level", choices=["a", "b", "all"], default="all")
    parser.add_argument("--only")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows: dict[str, Row] = defaultdict(Row)
    told: list[dict] = []
    if options.soak:
        found = soak(options.soak, options.seed)
    else:
        chosen = programs(options.level, options.only)
        found = ((case, line) for case, command in chosen for line in lines(command))
    for case, line in found:
        told.append({"case": case, **line})
        take(rows, case, line)
        if line.get("problems"):
            print(f"! {case}: {line}", file=sys.stderr, flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(told, indent=1))
    print(table(rows))
    sys.exit(any(row.problems for row in rows.values()))


if __name__ == "__main__":
    main()
