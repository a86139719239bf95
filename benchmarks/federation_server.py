"""The server's part of a study with many sites, which answer by formulas in a process of their own.

In:  a number of sites, a generator's size.   Out: the server's seconds of a round and its peak of memory.
Never: a site's memory or time in what is told of the server.

Messages take the way that they take with Flower: a request is encoded once, each reply is read from its bytes when the
server is ready for it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from benchmarks.timing import peak_rss
from fairsynth.config import GeneratorConfig, StudyPlan, TrainingConfig
from fairsynth.federation.flower import PROTOCOL, decode, encode
from fairsynth.federation.messages import Envelope
from fairsynth.federation.rounds import run_study
from fairsynth.schemas import SiteId

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 2  # in the second, moments travel too
_FILE = "safetensors"


class Enough(Exception):
    """The rounds that are measured have been committed."""


def in_process(root: Path, sites: int, embedding: int, layers: int) -> dict[str, Any]:
    """Two rounds of one arm. Call it in a process of its own."""
    root.mkdir(parents=True)
    plan = plan_of(sites, embedding=embedding, layers=layers)
    seconds: list[float] = []
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        transport = Elsewhere(pool, plan=plan, folder=root)
        rounds: list[float] = []

        def told(event: Mapping[str, Any]) -> None:
            seconds.append(time.perf_counter() - transport.away)
            if event["event"] == "round":
                rounds.append(seconds[-1] - seconds[-2])
                if len(rounds) == ROUNDS:
                    raise Enough

        with contextlib.suppress(Enough):
            run_study(transport, plan=plan, root=root / "server", progress=told)
    return {
        "server_seconds": round(statistics.mean(rounds), 3),
        "peak_mib": round(peak_rss() / 2**20, 1),
        "reply_mib": round(transport.largest / 2**20, 1),
    }


def plan_of(sites: int, *, embedding: int, layers: int) -> StudyPlan:
    """A plain study of the toys of the tests, with a generator of this size."""
    return _toys().toy_plan(
        roster=tuple(f"site-{number:04d}" for number in range(sites)),
        quorum=sites,
        generator=GeneratorConfig(embedding=embedding, layers=layers, heads=4, maximum_visits=4),
        training=TrainingConfig(rounds=ROUNDS, round_deadline_seconds=86_400, wire="bfloat16"),
    )


class Elsewhere:
    """Asks one site after the other, in the process of `pool`. `away` are the seconds that the server waited."""

    def __init__(self, pool: ProcessPoolExecutor, *, plan: StudyPlan, folder: Path) -> None:
        self._pool, self._plan, self._folder, self._number = pool, plan, folder, 0
        self.away, self.largest = 0.0, 0

    def ask(self, requests: Mapping[SiteId, Envelope], *, timeout: float) -> Iterator[tuple[SiteId, Envelope]]:
        """As `federation.conversation.Transport`; the last of the roster answers first."""
        self._number += 1
        request = self._folder / f"request-{self._number}"
        written: set[int] = set()
        for envelope in requests.values():
            if id(envelope) not in written:
                _write(request, envelope)
                written.add(id(envelope))
        for site in sorted(requests, reverse=True):
            began = time.perf_counter()
            self._pool.submit(_answer, self._plan, site, request, self._folder / "reply").result()
            self.away += time.perf_counter() - began
            envelope = _read(self._folder / "reply")
            self.largest = max(self.largest, sum(array.nbytes for array in envelope.arrays.values()))
            yield site, envelope
            del envelope
        request.unlink()


def _answer(plan: StudyPlan, site: str, request: Path, reply: Path) -> None:
    """In the sites' process."""
    _write(reply, _toys().ToySite(site, [[40, 5], [10, 2]], plan)(_request(request)))


@cache
def _toys() -> Any:
    folder = str(ROOT / "tests" / "federation")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import federation_toys

    return federation_toys


_last: dict[Path, Envelope] = {}


def _request(path: Path) -> Envelope:
    """Read once for all sites."""
    if path not in _last:
        _last.clear()
        _last[path] = _read(path)
    return _last[path]


def _write(path: Path, envelope: Envelope) -> None:
    content = encode(envelope)
    path.write_bytes(content["arrays"][_FILE].data)
    body = content["body"]
    path.with_suffix(".body").write_text(f"{body['kind']}\n{body['fields']}", encoding="utf-8")


def _read(path: Path) -> Envelope:
    kind, _, fields = path.with_suffix(".body").read_text(encoding="utf-8").partition("\n")
    file = path.read_bytes()
    arrays = ArrayRecord({_FILE: Array("uint8", (len(file),), _FILE, file)})
    body = ConfigRecord({"protocol": PROTOCOL, "kind": kind, "fields": fields})
    return decode(RecordDict({"arrays": arrays, "body": body}))
