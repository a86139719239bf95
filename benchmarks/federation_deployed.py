"""Rounds between real processes: SuperLink, and for each site a SuperNode with its own processes, TLS, masked sums.

In:  a number of sites, or the seconds of local work of a round.   Out: seconds of a round, memory by kind of process.
Never: more rounds than are measured: the study is stopped then.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from fairsynth.config import SimulationConfig
from fairsynth.errors import EngineError
from fairsynth.experiments.study import Engine, run_study
from fairsynth.federation.plans import learning_rate
from fairsynth.federation.site import read_plan, shared_by, study_of
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Study, measure, train
from fairsynth.simulate import simulate
from fairsynth.visits.cohort import load_cohort

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("flower-superlink", "flwr-serverapp", "flower-supernode", "flower-superexec", "flwr-clientapp")
SAMPLE_SECONDS = 2.0
ROUNDS = 3  # that are measured
EACH = {"few": 300, "many": 3000}  # patients of a site


class Enough(Exception):
    """The rounds that are measured have been committed."""


def overhead(root: Path, *, seconds: float) -> dict[str, Any]:
    """Seconds of a round of `seconds` of local work at two sites, federated and in two processes that are alone."""
    tables = _tables(root, patients=EACH["many"])
    run = root / "run"
    _study(run, _file(root, tables, sites=2, epochs=1, rounds=ROUNDS), rounds=0)
    folders = sorted((run / "sites").iterdir())
    few, many = (_alone(folders, epochs=number, rounds=1) for number in (2, 12))  # the first one warms up
    epochs = max(1, math.ceil(10 * (seconds - few) / (many - few)) + 2)
    before = _alone(folders, epochs=epochs, rounds=ROUNDS)
    federated = _study(run, _file(root, tables, sites=2, epochs=epochs, rounds=ROUNDS), rounds=ROUNDS)
    after = _alone(folders, epochs=epochs, rounds=ROUNDS)
    return {
        "alone": (before + after) / 2,
        "alone_before": before,
        "alone_after": after,
        "federated": statistics.mean(federated.rounds),
        "epochs": epochs,
    }


def real_sites(root: Path, sites: int) -> dict[str, Any]:
    """Two rounds of so many sites, which share this machine. Raises EngineError when it does not carry them."""
    root.mkdir(parents=True)
    tables = _tables(root, patients=EACH["few"])
    found = _study(root / "run", _file(root, tables, sites=sites, epochs=1, rounds=2), rounds=2)
    return {
        "round_seconds": round(statistics.mean(found.rounds), 1),
        **{f"{kind.partition('-')[2]}_mib": round(found.peaks[kind] / 2**20) for kind in KINDS},
        "together_mib": round(found.together / 2**20),
    }


class Watch:
    """Seconds of each round, and the most memory: of one process of each kind (resident), of all together (shared pages
    counted once).
    """

    def __init__(self) -> None:
        self.rounds: list[float] = []
        self.peaks: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.together = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            together = 0
            for number, kind in processes().items():
                resident, proportional = memory(number)
                self.peaks[kind] = max(self.peaks[kind], resident)
                together += proportional
            self.together = max(self.together, together)


def processes() -> dict[int, str]:
    """Flower's processes below this one, by number."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        found = [kind for kind in KINDS if any(Path(word).name == kind for word in words[:2])]
        names |= {int(entry.name): found[0]} if found else {}
    here = multiprocessing.current_process().pid

    def below(number: int) -> bool:
        while number in parents and number != here:
            number = parents[number]
        return number == here

    return {number: name for number, name in names.items() if below(number)}


def memory(number: int) -> tuple[int, int]:
    """Resident bytes of a process, and its share of them where several have the same pages; 0 of one that is gone."""
    try:
        lines = (Path("/proc") / str(number) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
    return found.get("Rss:", 0), found.get("Pss:", 0)


def _study(run: Path, study: Path, *, rounds: int) -> Watch:
    """Run the study until so many rounds of its first arm are committed."""
    with Watch() as watch:
        last = 0.0

        def told(event: dict[str, Any]) -> None:
            nonlocal last
            if event["event"] in ("agreed", "round"):
                if event["event"] == "round":
                    watch.rounds.append(time.monotonic() - last)
                last = time.monotonic()
                if len(watch.rounds) == rounds:
                    raise Enough

        try:
            run_study(study, out=run, engine=Engine.deployment, force=True, on_event=told)
        except Enough:
            return watch
    raise EngineError.of("the study ended early", where=str(study), expected=f"{rounds} rounds")


def _tables(root: Path, *, patients: int) -> Path:
    """Tables of a simulated hospital, which every site has."""
    tables = root / "tables"
    simulate(SimulationConfig(source="mimic3", patients=patients, seed=1, mix="study", detail=0.02), tables)
    return tables


def _file(root: Path, tables: Path, *, sites: int, epochs: int, rounds: int) -> Path:
    """A study of the demo's kind."""
    path = root / "study.yaml"
    values = {
        "schema": "fairsynth.study/1",
        "name": "federation",
        "seed": 1,
        "sites": [
            {"site": f"site-{number:02d}", "config": str(ROOT / "site_configs" / "mimic3"), "data": str(tables)}
            for number in range(sites)
        ],
        "privacy": {"profile": "exact", "agreement": "simulated patients", "minimum_contributing": 1},
        "groups": {"names": ["white", "black", "hispanic", "asian", "other"], "reference": ["white"]},
        "vocabulary": {"minimum_patients": 11},
        "generator": {"embedding": 128, "layers": 2, "heads": 4},
        "training": {"rounds": rounds, "local_epochs": epochs, "round_deadline_seconds": 3600},
        "audit": {"predictors": ["logistic_regression"], "seeds": 1},
    }
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return path


def _alone(folders: list[Path], *, epochs: int, rounds: int) -> float:
    """Seconds of a round of the same work in one process a site, at once; the slowest site's."""
    with ProcessPoolExecutor(len(folders), mp_context=multiprocessing.get_context("spawn")) as pool:
        return max(pool.map(_train_alone, folders, [epochs] * len(folders), [rounds] * len(folders)))


def _train_alone(folder: Path, epochs: int, rounds: int) -> float:
    """As a round of `federation.site.train`, without messages: the counts of the model, its losses, then training."""
    plan, shared, cohort = read_plan(folder), shared_by(folder), load_cohort(folder)
    study = study_of(cohort, plan, shared)
    weights = initial_weights(cohort.vocabulary, plan.generator, seed=plan.seed)
    moments = None
    with threadpool_limits(limits=plan.training.threads):
        began = time.monotonic()
        for number in range(rounds):
            now = Study(
                vocabulary=study.vocabulary,
                plan=plan,
                totals=study.totals,
                learning_rate=learning_rate(plan, round_number=min(number, plan.training.rounds - 1)),
                moments=moments,
            )
            for records in (cohort.train, cohort.validation):
                measure(weights, records=records, study=now)
            trained = train(weights, records=cohort.train, study=now, coefficients=None, epochs=epochs, seed=number)
            weights, moments = trained.weights, trained.moments
        return (time.monotonic() - began) / rounds
