"""The trials of a table, on all cores, each of them once: `out/cells/<setting>/r<real>-s<synthetic>/seed-<k>/cell`.

The ablation and Table 2 try other approaches, and have `<setting>/ablation` and `<setting>/table2` to themselves.

In:  a table's name, a setting, seeds.   Out: folders of finished trials.
Never: a trial that is there already; two processes on one trial; a half-written trial.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairsynth import artefacts
from fairsynth.config import read_study
from fairsynth.errors import ConfigError
from fairsynth.experiments.evidence.ablation import Ablation
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.cells import KIND
from fairsynth.experiments.evidence.counting import Sizes
from fairsynth.experiments.evidence.drawing import draw
from fairsynth.experiments.evidence.pool import read_pool, sources
from fairsynth.experiments.evidence.table2 import Table2
from fairsynth.experiments.evidence.trial import Trial
from fairsynth.seeds import stream

OnEvent = Callable[[dict[str, Any]], None]

MAIN = Sizes(real=2500, synthetic=2500)
PAPER = (  # the six rows of the paper's Table 1: with DI and worst TPR, 12 cells a data set, 24 in all
    MAIN,
    Sizes(real=1000, synthetic=2500),
    Sizes(real=5000, synthetic=2500),
    Sizes(real=2500, synthetic=500),
    Sizes(real=2500, synthetic=1000),
    Sizes(real=2500, synthetic=2000),
)
TABLE1 = (*PAPER, Sizes(real=5000, synthetic=5000))
ROWS: Mapping[str, Sequence[Sizes]] = {
    "table1": TABLE1,
    "ceiling": (MAIN,),
    "ablation": (MAIN,),
    "table2": (MAIN,),
}
OTHER_APPROACHES: Mapping[str, type[Ablation | Table2]] = {"ablation": Ablation, "table2": Table2}


@dataclass(frozen=True, kw_only=True)
class Work:
    """The trials of one seed that share real patients, so a generator; done one after another in one process."""

    setting: str
    study: Path
    pool: Path
    data: Mapping[str, Path]
    seed: int
    real: int
    synthetic: tuple[int, ...]
    out: Path
    table: str = "table1"

    def folder(self, synthetic: int) -> Path:
        """Of one trial; tables of the same approaches share it."""
        own = self.out / "cells" / self.setting
        if self.table in OTHER_APPROACHES:
            own /= self.table
        return own / f"r{self.real}-s{synthetic}" / f"seed-{self.seed}"

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers of synthetic patients whose trial is not there."""
        return tuple(number for number in self.synthetic if not (self.folder(number) / KIND).is_dir())

    def do(self) -> list[Path]:
        """Run what is missing."""
        if not self.missing:
            return []
        pool = read_pool(self.study, work=self.pool, data=self.data)
        seed = stream(pool.plan.seed, "evidence", self.seed)
        bench = Bench(draw=draw(pool, real=self.real, seed=seed), plan=pool.plan, seed=seed)
        done = []
        for synthetic in self.missing:
            sizes = Sizes(real=self.real, synthetic=synthetic)
            self.trial(bench, sizes).run().save(self.folder(synthetic))
            done.append(self.folder(synthetic))
        return done

    def trial(self, bench: Bench, sizes: Sizes) -> Trial | Ablation | Table2:
        """What the table tries."""
        if self.table in OTHER_APPROACHES:
            kind = OTHER_APPROACHES[self.table]
            return kind(bench=bench, setting=self.setting, sizes=sizes, number=self.seed)
        wide = sizes.synthetic == MAIN.synthetic
        return Trial(bench=bench, setting=self.setting, sizes=sizes, number=self.seed, wide=wide)


def run_grid(
    table: str,
    *,
    setting: str,
    study: Path,
    seeds: int,
    out: Path,
    work: Path,
    jobs: int,
    data: Mapping[str, Path] | None = None,
    rows: Sequence[Sizes] | None = None,
    on_event: OnEvent = lambda _: None,
) -> list[Path]:
    """Run the trials of `table` that are not in `out` yet; `work` keeps the setting's pool. Returns all of their
    folders.

    Raises ConfigError on an unknown table, or where `out` has the setting's trials of another study; and what reading
    the tables or a trial raises.
    """
    if table not in ROWS:
        raise ConfigError.of("unknown table", where=table, expected=f"one of: {', '.join(ROWS)}")
    named = dict(data or {})
    _claim(out / "cells" / setting, study, data=named)
    read_pool(study, work=work, data=named, on_event=on_event)  # once, before there are several processes
    tasks = list(_tasks(table, rows or ROWS[table], setting, study, seeds=seeds, out=out, pool=work, data=named))
    trials = sum(len(task.synthetic) for task in tasks)
    finished = trials - sum(len(task.missing) for task in tasks)
    on_event({"event": "trials", "done": finished, "of": trials})
    open_tasks = [task for task in tasks if task.missing]
    with ProcessPoolExecutor(max_workers=jobs, mp_context=multiprocessing.get_context("spawn")) as workers:
        running: dict[Future[list[Path]], Work] = {workers.submit(task.do): task for task in open_tasks}
        try:
            for future in as_completed(running):
                finished += len(future.result())
                on_event({"event": "trials", "done": finished, "of": trials, "seed": running[future].seed})
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    return [task.folder(number) for task in tasks for number in task.synthetic]


def finished(table: str, *, setting: str, out: Path) -> list[Path]:
    """The folders of all finished trials of `table` in `out`, of earlier commands too: the table's own rows in their
    order, then others by size; seeds in order."""
    own = out / "cells" / setting / (table if table in OTHER_APPROACHES else "")
    ranks = {f"r{row.real}-s{row.synthetic}": rank for rank, row in enumerate(ROWS[table])}
    found = [kept.parent for kept in own.glob(f"r*-s*/seed-*/{KIND}") if kept.is_dir()]

    def order(folder: Path) -> tuple[int, tuple[int, ...], int]:
        row = folder.parent.name
        sizes = tuple(map(int, row.removeprefix("r").split("-s")))
        return ranks.get(row, len(ranks)), sizes, int(folder.name.removeprefix("seed-"))

    return sorted(found, key=order)


def _claim(folder: Path, study: Path, *, data: Mapping[str, Path]) -> None:
    """Say in `folder` whose trials these are. Raises ConfigError where trials of another study, or of other tables, are
    in it.

    A study is known by its plan, as far as it is not the defaults, and by what its patients follow from.
    """
    plan = read_study(study).plan().model_dump(mode="json", exclude_defaults=True)
    wanted = artefacts.sha256_json([plan, sources(study, data=data)])
    stamp = folder / "study.sha256"
    if not stamp.is_file():
        artefacts.write_text(stamp, wanted + "\n")
    elif stamp.read_text(encoding="utf-8").strip() != wanted:
        raise ConfigError.of(
            "trials of another study, or of other tables",
            where=str(folder),
            do="name another --out, or give the study another name",
        )


def _tasks(
    table: str,
    rows: Sequence[Sizes],
    setting: str,
    study: Path,
    *,
    seeds: int,
    out: Path,
    pool: Path,
    data: Mapping[str, Path],
) -> Iterator[Work]:
    """By seed first, so that every seed of a row is done before the next real size begins."""
    for real in dict.fromkeys(row.real for row in rows):
        for seed in range(1, seeds + 1):
            yield Work(
                setting=setting,
                study=study,
                pool=pool,
                data=data,
                seed=seed,
                real=real,
                synthetic=tuple(row.synthetic for row in rows if row.real == real),
                out=out,
                table=table,
            )
