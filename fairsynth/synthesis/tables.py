"""MEDS events -> tables in the source's own format, by inverting `rules.yaml`.

In:  an `events/` artefact and a site configuration.   Out: `tables/`, an artefact with one text file a table: the
source's header, order and code system, so that whatever reads the source's tables reads these.
Never: a rule of its own about a source; a cell that a spreadsheet would run as a formula; a loss that is not counted
(`unwritable` among the facts of the manifest).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from fairsynth import artefacts
from fairsynth.config import SiteConfig
from fairsynth.errors import ArtefactError
from fairsynth.extraction.cells import holds, holds_any
from fairsynth.extraction.event_rules import EventRule, first_cells
from fairsynth.extraction.rules import DictionaryRule, Rules, TableRule, TextFormat, read_source
from fairsynth.synthesis.inverse import guard, moment
from fairsynth.synthesis.rows import Source, made_name, table_rows

KIND = "tables"
NOTICE = "README.txt"
_AT_HOME = (
    "Synthetic patients made by FairSynth, not tested for copies of real ones.\n"
    "They stay at the site: what may leave is what `fairsynth release export` writes, with its card.\n"
)

__all__ = ["KIND", "guard", "write_tables"]


def write_tables(events: Path, *, config: Path, out: Path) -> Path:
    """Write `out/tables/` from the events artefact at `events` by the rules in folder `config`, and return its path.

    Facts of the manifest: `rows` of each file; `unwritable`, kind of code -> events that the format has no room for;
    `retimed`, events whose time it does not tell; `implied`, events that it tells and nobody asked for.
    Raises ConfigError when the rules are wrong, ArtefactError when events are missing or no table makes one of them.
    """
    manifest = artefacts.read_manifest(events, kind="events")
    site, rules = read_source(config)
    facts: dict[str, Any] = {name: manifest["facts"][name] for name in ("release",) if name in manifest["facts"]}
    facts["synthetic"] = manifest["facts"].get("synthetic", False)
    inputs = {"events": manifest["content"], "rules": artefacts.sha256_json(rules.model_dump(mode="json"))}
    if isinstance(rules, Rules):
        _check_writable(rules, events)
    with artefacts.new(out, kind=KIND, inputs=inputs, facts=facts) as folder:
        if isinstance(rules, Rules):
            facts |= _written(folder, events, rules=rules, site=site)
        else:
            facts |= _copied(events, folder)
        if facts["synthetic"]:
            artefacts.write_text(folder / NOTICE, _AT_HOME)
    return out / KIND


@dataclass(kw_only=True)
class _Counts:
    """Of all shards written so far: `rows` of each file, and what went otherwise than the events say."""

    rows: Counter[str] = field(default_factory=Counter)
    unwritable: Counter[str] = field(default_factory=Counter)
    implied: Counter[str] = field(default_factory=Counter)
    retimed: int = 0


def _written(folder: Path, events: Path, *, rules: Rules, site: SiteConfig) -> dict[str, Any]:
    """Write every table and dictionary into `folder`, shard by shard; what the manifest says of them."""
    counts = _Counts()
    shards = sorted((events / "data").glob("*.parquet"))
    widths = _widths(shards)
    for shard in shards:
        source = Source.of(pl.read_parquet(shard), rules)
        for table in rules.tables:
            found = table_rows(table, source)
            before = counts.rows[table.file]
            complete = _complete(table, found.rows, source=source, site=site, widths=widths, before=before)
            _append(folder / f"{table.file}.csv", complete.select(table.columns), text=rules.text)
            counts.rows[table.file] += complete.height
            counts.unwritable.update(found.unwritable)
            counts.implied.update(_implied(table, complete))
            counts.retimed += found.retimed
    described = pl.read_parquet(events / "metadata" / "codes.parquet")
    for name, entries in _dictionaries(rules.dictionaries, described).items():
        _append(folder / f"{name}.csv", entries, text=rules.text)
        counts.rows[name] = entries.height
    ordered = {name: dict(sorted(getattr(counts, name).items())) for name in ("unwritable", "implied")}
    return {"rows": dict(counts.rows), "retimed": counts.retimed, **ordered}


def _widths(shards: list[Path]) -> dict[str, int]:
    """How many digits the largest identifiers have."""
    largest = pl.scan_parquet(shards).select(pl.col("subject_id", "visit_id").max()).collect(engine="streaming")
    return {name: len(str(largest[name][0] or 0)) for name in largest.columns}


def _copied(events: Path, folder: Path) -> dict[str, Any]:
    """The source's own format is MEDS: its data set is the events themselves, under the codes that they have here."""
    for name in ("data", "metadata"):
        shutil.copytree(events / name, folder / name)
    rows = sum(pq.read_metadata(path).num_rows for path in sorted((folder / "data").glob("*.parquet")))
    return {"rows": {"data": rows}, "retimed": 0, "unwritable": {}, "implied": {}}


def _check_writable(rules: Rules, events: Path) -> None:
    """Every event must lead back to a table. Raises ArtefactError with the kinds that do not."""
    shards = pl.scan_parquet(events / "data" / "*.parquet")
    codes = shards.select(pl.col("code").unique()).collect(engine="streaming")["code"]
    lost = sorted({code.split("//")[0] for code in codes if rules.table_of(code) is None})
    if lost:
        raise ArtefactError.of(
            "events that no table of the rules makes",
            where=f"{events}  {', '.join(lost)}",
            expected="events of the source that the rules describe",
            do="give the site configuration that the events were extracted with",
        )


# --- what rows hold beside their events ------------------------------------------------------------------------------


def _complete(
    table: TableRule,
    rows: pl.DataFrame,
    *,
    source: Source,
    site: SiteConfig,
    widths: Mapping[str, int],
    before: int,
) -> pl.DataFrame:
    """Identifiers, the visit's times and order, constants, running numbers and copies; in file order.

    `before` rows of the table are written already; `widths` are digits of the largest identifiers.
    """
    rules, write = source.rules, table.write
    rows = rows.sort("subject_id", "start", "visit_id", "time", nulls_last=False)
    rows = rows.with_columns(**_identifiers(table, rules, widths=widths))
    if table.file == rules.visits.table:
        rows = _as_visits(rows, table, rules=rules, site=site)
    rows = rows.with_columns(pl.col(name).fill_null(text) for name, text in write.constants.items())
    rows = rows.with_columns(moment(pl.col(edge), rules).alias(name) for name, edge in write.visit_times.items())
    for name, scope in write.sequences.items():
        number = pl.int_range(1, pl.len() + 1)
        within = {"table": number + before, "visit": number.over("visit_id"), "patient": number.over("subject_id")}
        rows = rows.with_columns(within[scope].cast(pl.String).alias(name))
    return rows.with_columns(pl.col(origin).alias(name) for name, origin in write.copies.items())


def _implied(table: TableRule, rows: pl.DataFrame) -> Counter[str]:
    """Kind of code -> events that the rows tell although they were not written for one: a discharge that is a death, a
    constant that is an answer. Whether a row outside visits tells an event of visits only, the row does not say."""
    found = Counter[str]()
    for number, rule in enumerate(table.events):
        if rule.in_visit:
            continue
        told = _some_cell(rule.columns) & (_some_cell(_time_columns(rule)) if rule.at is None else True)
        told &= ~pl.col(made_name(number)).fill_null(value=False) & holds(rule.where) & ~holds_any(rule.unless)
        if implied := rows.filter(told).height:
            found[rule.template.literal.split("//")[0]] += implied
    return found


def _identifiers(table: TableRule, rules: Rules, *, widths: Mapping[str, int]) -> dict[str, pl.Expr]:
    """The columns that say whose row it is. Text is padded, so that sorted texts are in the order of the numbers."""
    kinds = rules.identifiers
    found = {}
    for column, name, kind in (
        (table.subject, "subject_id", kinds.subject),
        (table.visit, "visit_id", kinds.visit),
    ):
        if column is not None:
            text = pl.col(name).cast(pl.String)
            found[column] = text.str.zfill(widths[name]) if kind == "text" else text
    return found


def _as_visits(rows: pl.DataFrame, table: TableRule, *, rules: Rules, site: SiteConfig) -> pl.DataFrame:
    """Start, end and order of visits where no event has told them, and the cell that makes the patients the site's."""
    edges = {rules.visits.start: "start", rules.visits.end: "end"}
    cells = {name: moment(pl.col(edge), rules) for name, edge in edges.items() if name is not None}
    order = () if rules.visits.clock is None else rules.visits.clock.order
    running = pl.int_range(1, pl.len() + 1).over("subject_id").cast(pl.String)
    cells |= {name: running for name in order if name not in (table.visit, *table.write.sequences)}
    if site.first_visit is not None and site.first_visit.cells[0]:
        cells[site.first_visit.column] = pl.lit(site.first_visit.cells[0])
    constants = table.write.constants
    return rows.with_columns(pl.col(name).fill_null(cell) for name, cell in cells.items() if name not in constants)


def _time_columns(rule: EventRule) -> tuple[str, ...]:
    """The columns of which one at least must be filled for the event to have its own time."""
    age = () if rule.age is None else (rule.age.column,)
    return (*rule.times, *age, *(() if rule.date is None else (rule.date.year,)))


def _some_cell(columns: tuple[str, ...]) -> pl.Expr:
    """Whether one of `columns` is filled; with none of them, nothing is missing."""
    return pl.any_horizontal(pl.lit(not columns), *(pl.col(column).is_not_null() for column in columns))


# --- dictionaries ----------------------------------------------------------------------------------------------------


def _dictionaries(rules: Iterable[DictionaryRule], codes: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows of each dictionary file for the codes that the events know, as text, in file order."""
    files: dict[str, list[DictionaryRule]] = {}
    for rule in rules:
        files.setdefault(rule.file, []).append(rule)
    return {name: _dictionary(same, codes) for name, same in files.items()}


def _dictionary(rules: list[DictionaryRule], codes: pl.DataFrame) -> pl.DataFrame:
    """The rows of one file, read by one rule or several."""
    first, rows = rules[0], []
    for code, description, parents in codes.select("code", "description", "parent_codes").sort("code").iter_rows():
        for rule in rules:
            cells = rule.cells(code, description=description or "", parents=parents or ())
            if cells is not None:
                rows.append({**rule.write.constants, **first_cells(rule.where), **cells})
    frame = pl.DataFrame(rows, schema=dict.fromkeys(first.columns, pl.String)).unique(maintain_order=True)
    for name in first.write.sequences:
        frame = frame.with_columns(pl.int_range(1, pl.len() + 1).cast(pl.String).alias(name))
    frame = frame.with_columns(pl.col(origin).alias(name) for name, origin in first.write.copies.items())
    return frame.with_columns(guard(pl.col(name)).alias(name) for name in frame.columns)


def _append(path: Path, rows: pl.DataFrame, *, text: TextFormat) -> None:
    """Add rows to a text file, as the source writes them; a new file begins with its header."""
    nothing = text.missing[0] if text.missing else ""
    lines = rows.write_csv(
        include_header=not path.exists(), line_terminator="\n", separator=text.delimiter, null_value=nothing
    )
    with path.open("ab") as handle:
        handle.write(_encoded(lines, path.name, text.encoding))


def _encoded(lines: str, name: str, encoding: str) -> bytes:
    """The lines in the file's encoding. Raises ArtefactError when it has no place for a character."""
    try:
        return lines.encode(encoding)
    except UnicodeEncodeError:
        expected = f"characters of {encoding}"
        raise ArtefactError.of("cells that the source's encoding cannot hold", where=name, expected=expected) from None
