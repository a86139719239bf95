"""MEDS events -> tables in the source's own format, by inverting `rules.yaml`.

In:  an `events/` artefact and a site configuration.   Out: `tables/`, an artefact with one CSV file a table: the
source's header, order and code system, so that whatever reads the source's tables reads these.
Never: a rule of its own about a source; a cell that a spreadsheet would run as a formula.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fairsynth import artefacts
from fairsynth.errors import ArtefactError
from fairsynth.extraction.event_rules import EventRule
from fairsynth.extraction.rules import DictionaryRule, FileRule, Rules, TableRule, read_rules

KIND = "tables"
NOTICE = "README.txt"

# A spreadsheet runs a cell that begins with one of these; an apostrophe before it keeps the cell text.
FORMULA = r"^[=+\-@\t\r]"
_NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
_CONTROL = r"[\x00-\x1f\x7f]"


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The events, and when each visit starts and ends."""

    rules: Rules
    events: pl.DataFrame
    visits: pl.DataFrame  # visit_id, start, end


def write_tables(events: Path, *, config: Path, out: Path) -> Path:
    """Write `out/tables/` from the events artefact at `events` by the rules in folder `config`, and return its path.

    Raises ConfigError when the rules are wrong, ArtefactError when events are missing or no table makes one of them.
    """
    manifest = artefacts.read_manifest(events, kind="events")
    rules = read_rules(config)
    frame = pl.read_parquet(events / "data" / "*.parquet")
    _check_writable(rules, frame, where=events)
    source = _Source(rules=rules, events=frame, visits=_visit_times(rules, frame))
    described = pl.read_parquet(events / "metadata" / "codes.parquet")
    facts: dict[str, Any] = {"synthetic": manifest["facts"].get("synthetic", False), "rows": {}}
    inputs = {"events": manifest["content"], "rules": artefacts.sha256_json(rules.model_dump(mode="json"))}
    with artefacts.new(out, kind=KIND, inputs=inputs, facts=facts) as folder:
        for table in rules.tables:
            _write(folder, table, _table(table, source), facts=facts)
        for dictionary in rules.dictionaries:
            _write(folder, dictionary, _dictionary(dictionary, described), facts=facts)
        if facts["synthetic"]:
            artefacts.write_text(folder / NOTICE, "Synthetic patients made by FairSynth. No row is a real person.\n")
    return out / KIND


def guard(column: pl.Expr) -> pl.Expr:
    """`column` without control characters, and with an apostrophe before text that a spreadsheet would run."""
    text = column.str.replace_all(_CONTROL, " ")
    runs = text.str.contains(FORMULA) & ~text.str.contains(_NUMBER)
    return pl.when(runs).then(pl.lit("'") + text).otherwise(text)


def _check_writable(rules: Rules, events: pl.DataFrame, *, where: Path) -> None:
    """Every event must lead back to a table. Raises ArtefactError with the kinds that do not."""
    codes = events["code"].unique()
    lost = sorted({code.split("//")[0] for code in codes if rules.table_of(code) is None})
    if lost:
        raise ArtefactError.of(
            "events that no table of the rules makes",
            where=f"{where}  {', '.join(lost)}",
            expected="events of the source that the rules describe",
            do="give the site configuration that the events were extracted with",
        )


def _visit_times(rules: Rules, events: pl.DataFrame) -> pl.DataFrame:
    """visit_id, start, end: from the events of the visits table that happen at a visit's start or end."""
    table = rules.table(rules.visits.table)
    start = [rule for rule in table.events if rule.time == rules.visits.start]
    end = [rule for rule in table.events if rule.time == rules.visits.end]
    return (
        events.filter(pl.col("visit_id").is_not_null())
        .group_by("visit_id")
        .agg(
            pl.coalesce(pl.col("time").filter(_any(start)).min(), pl.col("time").min()).alias("start"),
            pl.coalesce(pl.col("time").filter(_any(end)).max(), pl.col("time").max()).alias("end"),
        )
    )


def _any(rules: Iterable[EventRule]) -> pl.Expr:
    """Whether one of `rules` makes the event."""
    return pl.any_horizontal(pl.lit(value=False), *(_made_by(rule) for rule in rules))


def _made_by(rule: EventRule) -> pl.Expr:
    """Whether `rule` makes the event: the vectorised `Template.invert(code) is not None`."""
    template = rule.template
    if template.column is None:
        return pl.col("code") == template.literal
    return pl.col("code").str.starts_with(template.literal) & (pl.col("code").str.len_chars() > len(template.literal))


def _table(table: TableRule, source: _Source) -> pl.DataFrame:
    """The rows of `table`, all columns as text, in file order."""
    parts = [_cells(table, rule, source) for rule in table.events]
    rows = pl.concat(parts, how="diagonal")
    key = {"patient": ["subject_id"], "visit": ["subject_id", "visit_id"]}.get(table.write.row)
    if key is not None:
        rows = rows.group_by(key).agg(pl.all().drop_nulls().first())
    rows = rows.join(source.visits, on="visit_id", how="left").sort("subject_id", "visit_id", "time", nulls_last=False)
    return _complete(table, rows, rules=source.rules)


def _cells(table: TableRule, rule: EventRule, source: _Source) -> pl.DataFrame:
    """subject_id, visit_id, time, and the text cells that `rule` gives for each of its events."""
    cells: dict[str, pl.Expr] = {column: pl.lit(text) for column, text in {**rule.sets, **rule.where}.items()}
    if rule.time is not None:
        cells[rule.time] = _moment(pl.col("time"), source.rules)
    if rule.value is not None:
        cells[rule.value] = pl.col("numeric_value").cast(pl.String)
    if rule.unit is not None:
        cells[rule.unit] = guard(pl.col("unit"))
    if rule.template.column is not None:
        cells[rule.template.column] = guard(pl.col("code").str.slice(len(rule.template.literal)))
    if table.subject is not None:
        cells[table.subject] = pl.col("subject_id").cast(pl.String)
    if table.visit is not None:
        cells[table.visit] = pl.col("visit_id").cast(pl.String)
    return source.events.filter(_made_by(rule)).select(
        "subject_id", "visit_id", "time", *(cell.cast(pl.String).alias(name) for name, cell in cells.items())
    )


def _complete(table: TableRule, rows: pl.DataFrame, *, rules: Rules) -> pl.DataFrame:
    """Add running numbers, constants, visit times and copies; leave the other columns of the file empty."""
    write = table.write
    for name in table.columns:
        if name not in rows.columns:
            rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias(name))
    rows = rows.with_columns(pl.col(name).fill_null(text) for name, text in write.constants.items())
    rows = rows.with_columns(_moment(pl.col(edge), rules).alias(name) for name, edge in write.visit_times.items())
    for name, scope in write.sequences.items():
        number = pl.int_range(1, pl.len() + 1)
        running = number if scope == "table" else number.over("visit_id")
        rows = rows.with_columns(running.cast(pl.String).alias(name))
    rows = rows.with_columns(pl.col(origin).alias(name) for name, origin in write.copies.items())
    return rows.select(table.columns)


def _dictionary(rule: DictionaryRule, codes: pl.DataFrame) -> pl.DataFrame:
    """The dictionary's rows for the codes that the events know, as text, in file order."""
    rows = []
    for code, description, parents in codes.select("code", "description", "parent_codes").sort("code").iter_rows():
        cells = rule.cells(code, description=description or "", parents=parents or ())
        if cells is not None:
            rows.append({**rule.write.constants, **cells})
    frame = pl.DataFrame(rows, schema=dict.fromkeys(rule.columns, pl.String))
    for name in rule.write.sequences:
        frame = frame.with_columns(pl.int_range(1, pl.len() + 1).cast(pl.String).alias(name))
    frame = frame.with_columns(pl.col(origin).alias(name) for name, origin in rule.write.copies.items())
    return frame.with_columns(guard(pl.col(name)).alias(name) for name in frame.columns)


def _moment(column: pl.Expr, rules: Rules) -> pl.Expr:
    """A time as the source writes it."""
    return column.dt.strftime(rules.date_formats[0])


def _write(folder: Path, rule: FileRule, rows: pl.DataFrame, *, facts: dict[str, Any]) -> None:
    """One CSV file, and its number of rows among the facts."""
    rows.write_csv(folder / f"{rule.file}.csv", line_terminator="\n")
    facts["rows"][rule.file] = rows.height
