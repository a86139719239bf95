"""Raw tables -> `events/`: the one engine behind every source's rules.

In:  a data folder and a site configuration.   Out: the artefact `root/events` in MEDS 0.4 layout: data/0.parquet,
metadata/codes.parquet, metadata/dataset.json, and flow.json.
Never: a half-written artefact; a write before every check has passed; a change to the data folder.
"""

from __future__ import annotations

import importlib.metadata
import json
from contextlib import suppress
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fairsynth import artefacts
from fairsynth.errors import ArtefactError, ExtractionError
from fairsynth.extraction.checks import TableReport, TablesReport, checked, survey
from fairsynth.extraction.codes import describe
from fairsynth.extraction.events import Frame, all_events
from fairsynth.extraction.rules import Rules, TableRule, read_source
from fairsynth.extraction.tables import Table, find

KIND = "events"
DATA = Path("data/0.parquet")  # these three by MEDS 0.4
CODES = Path("metadata/codes.parquet")
DATASET = Path("metadata/dataset.json")
FLOW = Path("flow.json")
ROWS_A_GROUP = 1_000_000

EVENT_ARROW = pa.schema(
    [
        pa.field("subject_id", pa.int64()),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string()),
        pa.field("numeric_value", pa.float32()),
        pa.field("visit_id", pa.int64()),
        pa.field("unit", pa.string()),
    ]
)


def extract(data: Path, *, config: Path, root: Path) -> Path:
    """Write `root/events` from the tables in `data` by the rules in folder `config`, and return its path.

    A finished artefact whose inputs are unchanged (contents of tables and configuration, version of the code) is kept
    as it is. Raises ConfigError, and ExtractionError with every problem of the data folder before anything is written.
    """
    site, rules = read_source(config)
    files = {name: artefacts.sha256_file(config / name) for name in ("site.yaml", site.rules)}
    inputs = _hashes(data, rules) | files
    if _is_current(root / KIND, inputs=inputs):
        return root / KIND
    tables, frame, report = checked(survey(data, site=site, rules=rules))
    facts: dict[str, object] = {"source": report.source, "data_sha256": inputs["data"]}
    with artefacts.new(root, kind=KIND, inputs=inputs, facts=facts) as folder:
        facts |= _write(folder, tables=tables, frame=frame, report=report)
    return root / KIND


def _hashes(data: Path, rules: Rules) -> dict[str, str]:
    """SHA-256 of every table, and of all together as `data`. A table that is not there is left to the checks."""
    tables = {}
    for rule in rules.files:
        with suppress(ExtractionError, OSError):
            tables[rule.file] = artefacts.sha256_file(find(data, rule.file))
    return {**tables, "data": artefacts.sha256_json(tables)}


def _is_current(folder: Path, *, inputs: dict[str, str]) -> bool:
    """Whether a sound artefact of this code from these inputs is already there."""
    try:
        manifest = artefacts.read_manifest(folder, kind=KIND, verify=True)
    except ArtefactError:
        return False
    return bool(manifest["inputs"] == inputs and manifest["code_version"] == artefacts.code_version())


def _write(folder: Path, *, tables: dict[str, Table], frame: Frame, report: TablesReport) -> dict[str, int]:
    """Write the files of the artefact; the counts that its manifest states."""
    (folder / DATA).parent.mkdir(parents=True)
    (folder / CODES).parent.mkdir(parents=True)
    _write_events(all_events(tables, frame), folder / DATA)
    events = pl.scan_parquet(folder / DATA)
    codes = describe(events, tables=tables, rules=frame.rules)
    pq.write_table(codes, folder / CODES)
    artefacts.write_json(folder / DATASET, _dataset(report.source))
    flow = _flow(events, frame=frame, report=report)
    artefacts.write_text(folder / FLOW, json.dumps(flow, indent=2) + "\n")  # in the order of the steps
    return {"patients": report.patients, "visits": report.visits, "events": flow["events"], "codes": codes.num_rows}


def _write_events(events: pl.LazyFrame, path: Path) -> None:
    """Write events, streamed. Polars writes `large_string`, which MEDS does not accept: hence the second pass."""
    sorted_events = path.with_name("sorted.parquet")
    try:
        events.sink_parquet(sorted_events, engine="streaming")
    except pl.exceptions.ComputeError:  # its text quotes cells
        raise ExtractionError.of("tables changed while they were read", where=KIND, do="run it again") from None
    with pq.ParquetFile(sorted_events) as source, pq.ParquetWriter(path, EVENT_ARROW, compression="zstd") as target:
        for batch in source.iter_batches(batch_size=ROWS_A_GROUP):
            target.write_batch(batch.cast(EVENT_ARROW), row_group_size=ROWS_A_GROUP)
    sorted_events.unlink()


def _flow(events: pl.LazyFrame, *, frame: Frame, report: TablesReport) -> dict[str, int]:
    """What came in, what was left out and why, what came out: step -> count, in order (no losses of zero)."""
    rules = frame.rules
    visited = {rule.file: _made_by(rule) & pl.col("visit_id").is_null() for rule in rules.tables if rule.visit}
    counts = [condition.sum().alias(name) for name, condition in visited.items()]
    found = events.select(pl.len().alias("events"), *counts).collect(engine="streaming").row(0, named=True)
    flow = {
        "patients": report.patients,
        "visits": report.visits,
        "visits that end before they start (kept)": report.visits_ending_before_they_start,
    }
    for table in report.tables:
        flow |= _table_flow(table)
        if rules.table(table.table).attach_by_time:
            flow[f"{table.table}: events that name no visit"] = table.events_without_visit
            flow[f"{table.table}: of these, in a visit by their time"] = table.events_without_visit - found[table.table]
    flow["events"] = found["events"]
    flow["events outside any visit"] = sum(found[name] for name in visited)
    return flow


def _table_flow(table: TableReport) -> dict[str, int]:
    """The steps of one table."""
    losses = {
        "rows of unknown patients (left out)": table.rows_of_unknown_patients,
        "rows of unknown visits (left out)": table.rows_of_unknown_visits,
        "rows without a code (left out)": table.rows_without_code,
        "rows without a time (left out)": table.rows_without_time,
    }
    steps = {"rows": table.rows, **{step: number for step, number in losses.items() if number}, "events": table.events}
    return {f"{table.table}: {step}": number for step, number in steps.items()}


def _made_by(rule: TableRule) -> pl.Expr:
    """Whether an event's code comes from this table."""
    code = pl.col("code")
    templates = [event.template for event in rule.events]
    return pl.any_horizontal(
        [code == t.literal if t.column is None else code.str.starts_with(t.literal) for t in templates]
    )


def _dataset(source: str) -> dict[str, object]:
    """The MEDS description of the data set. It holds no time of making, so that equal inputs give equal files."""
    return {
        "dataset_name": source,
        "etl_name": "fairsynth.extraction",
        "etl_version": artefacts.code_version(),
        "meds_version": importlib.metadata.version("meds"),
        "code_modifier_columns": ["unit"],
        "other_extension_columns": ["visit_id"],
    }
