"""Raw tables -> cohort at full size: `python -m benchmarks.extract [--json] [--quick] [--keep FOLDER] [--ten]`.

Simulated tables with as many rows as MIMIC-III 1.4 and PIC 1.1.0, through extract, prepare and encode. In one run, each
figure in a fresh process: seconds and peak memory of both sources; memory with all laboratory rows over memory with a
tenth of them; and, on fewer patients, how much faster extract and prepare are than benchmarks/extract_pandas.py, which
must give the same events, patients and tokens; beside it, what hashing and parsing the same files alone costs. With
`--ten` also ten times MIMIC-III's laboratory rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from fairsynth import artefacts
from fairsynth.config import SimulationConfig, StudyPlan, read_study
from fairsynth.extraction import extract
from fairsynth.simulate import full_size, simulate
from fairsynth.visits.cohort import encode, prepare, shared_vocabulary

ROOT = Path(__file__).resolve().parents[1]
LABS = "LABEVENTS.csv"
TIMES = 10  # as many laboratory rows, in both comparisons of memory
REPEATS = 2  # of each side of the comparison with pandas, in turn; the fastest counts

Source = Literal["mimic3", "pic"]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Patients of each part of the benchmark; None: as many as the source has."""

    mimic3: int | None = None
    pic: int | None = None
    pandas: int = 5_000


QUICK = Sizes(mimic3=1_500, pic=400, pandas=500)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one fresh process took for `steps`."""

    steps: dict[str, float]  # seconds
    peak_rss_gb: float

    @property
    def seconds(self) -> float:
        """All steps."""
        return round(sum(self.steps.values()), 3)


# --- work, each in a process of its own ------------------------------------------------------------------------------


def make_tables(source: Source, patients: int | None, folder: Path) -> dict[str, float]:
    """Simulate one source's tables."""
    start = time.perf_counter()
    config = SimulationConfig(source=source, patients=patients or 1)
    simulate(config if patients else full_size(config), folder)
    return {"simulate": time.perf_counter() - start}


def make_cohort(source: Source, raw: Path, root: Path) -> dict[str, float]:
    """Raw tables to an encoded cohort: what a site does."""
    plan, config, times = study_plan(), ROOT / "site_configs" / source, [time.perf_counter()]
    extract(raw, config=config, root=root)
    times.append(time.perf_counter())
    proposal = prepare(root, config=config, plan=plan)
    times.append(time.perf_counter())
    encode(root, vocabulary=shared_vocabulary(proposal.codes, plan=plan), plan=plan)
    times.append(time.perf_counter())
    names = ("extract", "prepare", "encode")
    return {name: end - start for name, start, end in zip(names, times[:-1], times[1:], strict=True)}


def make_in_pandas(raw: Path, out: Path) -> dict[str, float]:
    """The same events, patients and tokens by the pandas version."""
    from benchmarks import extract_pandas

    return extract_pandas.run(raw, config=ROOT / "site_configs" / "mimic3", plan=study_plan(), out=out)


def parse_only(raw: Path) -> dict[str, float]:
    """Hash the tables and parse their cells as text, no more: what any program that reads them has to do."""
    start = time.perf_counter()
    for path in sorted(raw.glob("*.csv")):
        artefacts.sha256_file(path)
        with path.open(encoding="utf-8") as handle:
            names = handle.readline().strip().split(",")
        pc.read_csv(path, convert_options=pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string())))
    return {"hash and parse": time.perf_counter() - start}


def compare(root: Path, out: Path) -> dict[str, float]:
    """Raise SystemExit unless both versions wrote the same tables: equal rows in equal order, types but for width."""
    start = time.perf_counter()
    for name, files in (
        ("events", sorted((root / "events" / "data").glob("*.parquet"))),
        ("patients", [root / "visits" / "patients.parquet"]),
        ("tokens", [root / "visits" / "tokens.parquet"]),
    ):
        ours = pl.read_parquet(files)
        if not ours.equals(pl.read_parquet(out / f"{name}.parquet").cast(dict(ours.schema))):
            raise SystemExit(f"{name} of the pandas version differ: the comparison means nothing")
    return {"compare": time.perf_counter() - start}


def study_plan() -> StudyPlan:
    return read_study(ROOT / "studies" / "demo.yaml").plan()


def measured(work: Callable[..., dict[str, float]], *arguments: Any) -> Measured:
    """Run `work` in a fresh process; its seconds by step, and the peak memory of that process and its threads."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, work, arguments).result()


def _measure(work: Callable[..., dict[str, float]], arguments: tuple[Any, ...]) -> Measured:
    steps = {name: round(seconds, 3) for name, seconds in work(*arguments).items()}
    return Measured(steps=steps, peak_rss_gb=round(peak_rss() / 1e9, 3))


def peak_rss() -> int:
    """The most memory that this process and its threads held, in bytes (Linux).

    Not `ru_maxrss`: a new process starts with that of the one that made it.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


# --- tables ----------------------------------------------------------------------------------------------------------


def tables(source: Source, patients: int | None, folder: Path) -> Path:
    """The simulated tables in `folder`, made unless they are there."""
    raw = folder / (f"{source}-{patients}" if patients else source)
    if not raw.is_dir():
        say(f"simulating {raw.name}")
        measured(make_tables, source, patients, raw)
    return raw


def with_labs(raw: Path, name: str, write: Callable[[Path, Path], None]) -> Path:
    """The tables of `raw` under another name, with the laboratory table that `write` makes of its own."""
    target = raw.with_name(f"{raw.name}-{name}")
    if not target.is_dir():
        say(f"writing {target.name}")
        temporary = Path(tempfile.mkdtemp(dir=raw.parent, prefix=f".{target.name}."))
        for path in raw.glob("*.csv"):
            if path.name != LABS:
                (temporary / path.name).symlink_to(path.resolve())
        write(raw / LABS, temporary / LABS)
        temporary.chmod(0o755)
        temporary.rename(target)
    return target


def every_tenth(source: Path, target: Path) -> None:
    """The header and every tenth row."""
    with source.open("rb") as lines, target.open("wb") as out:
        out.write(next(lines))
        out.writelines(line for number, line in enumerate(lines) if number % TIMES == 0)


def ten_copies(source: Path, target: Path) -> None:
    """All rows ten times: each copy under row numbers of its own and a minute later than the one before."""
    rows = count_rows(source)
    columns = pl.scan_csv(source, infer_schema=False).collect_schema().names()
    with target.open("wb") as out:
        out.write((",".join(columns) + "\n").encode())
        for copy in range(TIMES):
            later = pl.col("CHARTTIME").str.to_datetime("%Y-%m-%d %H:%M:%S") + pl.duration(minutes=copy)
            number = pl.col("ROW_ID").cast(pl.Int64) + copy * rows
            frame = pl.scan_csv(source, infer_schema=False).with_columns(ROW_ID=number, CHARTTIME=later)
            for batch in frame.collect_batches(chunk_size=500_000, maintain_order=True):
                batch.write_csv(out, include_header=False, datetime_format="%Y-%m-%d %H:%M:%S")


def count_rows(path: Path) -> int:
    """Lines below the header; no cell of these tables holds a line break."""
    with path.open("rb") as handle:
        return sum(block.count(b"\n") for block in iter(lambda: handle.read(1 << 24), b"")) - 1


# --- figures ---------------------------------------------------------------------------------------------------------


def figures(folder: Path, sizes: Sizes, *, ten: bool) -> dict[str, Any]:
    """All measurements, the four of the target first."""
    mimic3 = tables("mimic3", sizes.mimic3, folder)
    full = cohort("mimic3", mimic3)
    tenth = cohort("mimic3", with_labs(mimic3, "tenth", every_tenth))
    ours, pandas = against_pandas(tables("mimic3", sizes.pandas, folder))
    least = measured(parse_only, tables("mimic3", sizes.pandas, folder))
    children = tables("pic", sizes.pic, folder)
    pic = cohort("pic", children)
    found = {
        "seconds": full.seconds,
        "peak_rss_gb": full.peak_rss_gb,
        "speedup_vs_pandas": round(pandas.seconds / ours.seconds, 2),
        "rss_growth_10x": round(full.peak_rss_gb / tenth.peak_rss_gb, 2),
        "pic_seconds": pic.seconds,
        "pic_peak_rss_gb": pic.peak_rss_gb,
        "details": {
            "cores": len(os.sched_getaffinity(0)),
            "mimic3": described(full, mimic3),
            "mimic3, every tenth laboratory row": described(tenth, mimic3.with_name(f"{mimic3.name}-tenth")),
            "pic": described(pic, children),
            f"{sizes.pandas:,} patients, extract and prepare": described(ours),
            f"{sizes.pandas:,} patients, pandas": described(pandas),
            f"{sizes.pandas:,} patients, only hashed and parsed": described(least),
            "same_output": "events, patients, tokens: equal rows in equal order",
        },
    }
    if ten:
        many = with_labs(mimic3, "ten", ten_copies)
        measured_many = cohort("mimic3", many)
        found["details"]["mimic3, ten times the laboratory rows"] = described(measured_many, many)
        found["details"]["rss_growth_279m"] = round(measured_many.peak_rss_gb / full.peak_rss_gb, 2)
    return found


def cohort(source: Source, raw: Path) -> Measured:
    """Measure the whole way of one site; nothing of it is kept."""
    say(f"extracting {raw.name}")
    with scratch(raw) as root:
        return measured(make_cohort, source, raw, root)


def against_pandas(raw: Path) -> tuple[Measured, Measured]:
    """The fastest of `REPEATS` runs of ours (extract and prepare) and of the pandas version, with the same output."""
    ours: list[Measured] = []
    pandas: list[Measured] = []
    for number in range(REPEATS):
        say(f"comparing with pandas on {raw.name}, run {number + 1} of {REPEATS}")
        with scratch(raw) as root:
            ours.append(measured(make_cohort, "mimic3", raw, root))
            pandas.append(measured(make_in_pandas, raw, root / "pandas"))
            measured(compare, root, root / "pandas")
    best = min(ours, key=lambda one: one.steps["extract"] + one.steps["prepare"])
    steps = {name: best.steps[name] for name in ("extract", "prepare")}
    both = Measured(steps=steps, peak_rss_gb=best.peak_rss_gb)
    return both, min(pandas, key=lambda one: one.seconds)


def described(one: Measured, raw: Path | None = None) -> dict[str, Any]:
    rows = {} if raw is None else {"rows": {path.stem: count_rows(path) for path in sorted(raw.glob("*.csv"))}}
    return {"seconds": one.seconds, "peak_rss_gb": one.peak_rss_gb, "steps": one.steps, **rows}


@contextmanager
def scratch(raw: Path) -> Iterator[Path]:
    """A folder beside `raw`, on the same disk, for one measurement."""
    folder = Path(tempfile.mkdtemp(dir=raw.parent, prefix=f".{raw.name}."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


def shown(found: dict[str, Any]) -> str:
    """A small table: the figures, then what each process took."""
    lines = [f"{name:28} {value:>10}" for name, value in found.items() if name != "details"]
    lines += ["", f"{'each in a fresh process':44} {'seconds':>9} {'GB':>7} {'lab rows':>12}"]
    for name, one in found["details"].items():
        if isinstance(one, dict):
            labs = one.get("rows", {}).get("LABEVENTS")
            lines.append(f"{name:44} {one['seconds']:9.1f} {one['peak_rss_gb']:7.2f} {labs or '':>12}")
    return "\n".join(lines)


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same figures on few patients, in a minute")
    parser.add_argument("--patients", type=int, help="patients of the comparison with pandas (default: 5,000)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the tables there, and use those that are")
    parser.add_argument("--ten", action="store_true", help="also ten times the laboratory rows (16 GB of CSV)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.patients:
        sizes = Sizes(mimic3=sizes.mimic3, pic=sizes.pic, pandas=arguments.patients)
    with ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        found = figures(folder, sizes, ten=arguments.ten)
    print(json.dumps(found) if arguments.json else shown(found))


if __name__ == "__main__":
    main()
