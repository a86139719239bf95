"""A MEDS data set as a source: its events under our codes, each in its visit.

In:  a folder in MEDS layout (`data/**/*.parquet`, `metadata/codes.parquet`), `MedsRules`.   Out: `MedsSource`.
Never: a value in a message; more than a batch of events in memory.

Visits are told by the visit column where the data set has one. Where it has none, a visit is an ADMISSION event and the
first DISCHARGE of its patient at or after it, before the next ADMISSION; visits are numbered in order of patient and
time, and an event belongs to the visit that its time falls in. Where the column is there, it has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fairsynth.errors import Problem
from fairsynth.extraction import cells, parquetfile
from fairsynth.extraction.codes import CODES_ARROW
from fairsynth.extraction.meds_rules import MedsRules
from fairsynth.extraction.tables import ROW

_REQUIRED = ("subject_id", "time", "code")
FLAWS = {  # column -> what a row must have in it to be read
    "subject_id": "a number",
    "code": f"a code of at most {cells.LONGEST_CODE} characters",
    "time": f"a time in the years {cells.EARLIEST} to {cells.LATEST}, or none",
    "numeric_value": "a finite number, or none",
}
ADMISSION, DISCHARGE = "ADMISSION//", "DISCHARGE//"


@dataclass(frozen=True, kw_only=True)
class MedsFile:
    """One shard of the data set, and which of the optional columns it has."""

    path: Path
    columns: tuple[str, ...]

    def batches(self) -> Iterator[pl.DataFrame]:
        """subject_id, time, code, numeric_value and what else of `columns` there is. Raises ExtractionError."""
        yield from parquetfile.plain_batches(self.path, list(self.columns))


@dataclass(frozen=True, kw_only=True)
class MedsSource:
    """A MEDS data set, opened."""

    root: Path
    rules: MedsRules
    files: tuple[MedsFile, ...]

    @property
    def has_visits(self) -> bool:
        """Whether the data set names the visit of an event."""
        return self.rules.visit is not None and all(self.rules.visit in file.columns for file in self.files)

    def batches(self) -> Iterator[tuple[MedsFile, pl.DataFrame]]:
        """Every file's events: ROW, subject_id, time, code (the source's), numeric_value, visit_key, unit; and `flaw`,
        the first of FLAWS that a row has (null: none)."""
        for file in self.files:
            first = 0
            for batch in file.batches():
                rows = self._read(batch).with_row_index(ROW, offset=first)
                yield file, rows.with_columns(numeric_value=cells.number("numeric_value"), flaw=_flaw())
                first += batch.height

    def _read(self, batch: pl.DataFrame) -> pl.DataFrame:
        visit = self.rules.visit if self.has_visits else None
        return batch.select(
            "subject_id",
            "time",
            pl.col("code").cast(pl.String),
            numeric_value=_or_nothing(batch, "numeric_value", pl.Float64()).fill_nan(None),
            visit_key=_or_nothing(batch, visit, pl.Int64()),
            unit=_or_nothing(batch, self.rules.unit, pl.String()),
        )

    def renamed(self, codes: list[str]) -> pl.DataFrame:
        """code, name, named_unit: what each of the source's codes becomes; a code may have several rows, or none."""
        rows = [(code, *new) for code in codes for new in self.rules.rename(code)]
        return pl.DataFrame(rows, schema={"code": pl.String, "name": pl.String, "named_unit": pl.String}, orient="row")

    def describe(self, codes: pl.Series) -> pa.Table:
        """Each of our `codes` with the description and parents of the source's codes that it comes from."""
        entries = self._entries()
        names = self.renamed(entries["code"].to_list()).select("code", "name")
        own = [
            {"name": code, "description": None, "parents": [parents] if isinstance(parents, str) else list(parents)}
            for code, parents in self.rules.parents.items()
        ]
        schema = pl.Schema({"name": pl.String(), "description": pl.String(), "parents": pl.List(pl.String)})
        found = pl.concat([pl.DataFrame(own, schema=schema), names.join(entries, on="code").select(schema.names())])
        grouped = found.group_by("name", maintain_order=True).agg(
            pl.col("description").drop_nulls().first(),
            parent_codes=pl.col("parents").explode(empty_as_null=True).drop_nulls().unique().sort(),
        )
        described = (
            pl.DataFrame({"code": codes}).join(grouped, left_on="code", right_on="name", how="left").sort("code")
        )
        filled = described.with_columns(pl.col("parent_codes").fill_null(pl.lit([], dtype=pl.List(pl.String))))
        return filled.select(CODES_ARROW.names).to_arrow().cast(CODES_ARROW)

    def _entries(self) -> pl.DataFrame:
        """code, description, parents of the data set's own `codes.parquet`; nothing where it has none."""
        schema = pl.Schema({"code": pl.String(), "description": pl.String(), "parents": pl.List(pl.String)})
        path = self.root / "metadata" / "codes.parquet"
        if not path.is_file():
            return pl.DataFrame(schema=schema)
        try:
            read = pl.DataFrame(pq.read_table(path))
        except parquetfile.DAMAGED as error:
            raise parquetfile.damaged(path, error) from None
        return read.select(
            pl.col("code").cast(pl.String),
            description=_or_nothing(read, "description", pl.String()),
            parents=_or_nothing(read, "parent_codes", pl.List(pl.String)),
        )


def open_meds(data: Path, rules: MedsRules) -> tuple[MedsSource, list[Problem]]:
    """The MEDS data set at `data`, and what is wrong with its files' schemas."""
    paths = data_files(data)
    problems: list[Problem] = []
    files = []
    if not paths:
        where, expected = str(data / "data"), "Parquet files in MEDS layout"
        problems.append(Problem(what="no MEDS data", where=where, expected=expected, do="check the path"))
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except parquetfile.DAMAGED as error:
            problems += parquetfile.damaged(path, error).problems
            continue
        kinds = {
            **_EVENTS,
            **({rules.visit: "whole"} if rules.visit else {}),
            **({rules.unit: "text"} if rules.unit else {}),
        }
        problems += _schema_problems(path, schema, kinds=kinds, required=_REQUIRED)
        files.append(MedsFile(path=path, columns=tuple(name for name in kinds if name in schema.names)))
    problems += _code_problems(data / "metadata" / "codes.parquet")
    return MedsSource(root=data, rules=rules, files=tuple(files)), problems


def data_files(data: Path) -> list[Path]:
    """The shards of a MEDS data set, in order of their names."""
    return sorted(path for path in (data / "data").rglob("*.parquet") if path.is_file())


def meds_files(data: Path) -> list[Path]:
    """The files of a MEDS data set that are read."""
    codes = data / "metadata" / "codes.parquet"
    return [*data_files(data), *([codes] if codes.is_file() else [])]


def read_visits(source: MedsSource) -> pl.DataFrame:
    """subject_id, visit_key, visit_id, start, end, zero of every visit that has an admission and a discharge."""
    codes = _codes(source)
    names = source.renamed(codes)
    edges = names.filter(pl.col("name").str.contains(f"^(?:{ADMISSION}|{DISCHARGE})"))
    found = [pl.DataFrame(schema=_EDGES)]
    for _, batch in source.batches():
        edge = batch.filter(pl.col("flaw").is_null()).join(edges, on="code").drop_nulls("time")
        opens = pl.col("name").str.starts_with(ADMISSION)
        found.append(edge.select("subject_id", "visit_key", "time", opens=opens))
    moments = pl.concat(found)
    visits = _named(moments) if source.has_visits else _paired(moments)
    return visits.with_columns(zero=pl.col("start")).sort("subject_id", "start")


_EDGES = pl.Schema(
    {"subject_id": pl.Int64(), "visit_key": pl.Int64(), "time": pl.Datetime("us"), "opens": pl.Boolean()}
)


def _codes(source: MedsSource) -> list[str]:
    """Every code of the data set, sorted."""
    seen: set[str] = set()
    for _, batch in source.batches():
        seen.update(batch["code"].drop_nulls().unique().to_list())
    return sorted(seen)


def _named(moments: pl.DataFrame) -> pl.DataFrame:
    """Visits that have a number: from their first admission to their last discharge."""
    opens = pl.col("opens")
    visits = moments.drop_nulls("visit_key").group_by("subject_id", "visit_key")
    ends = visits.agg(start=pl.col("time").filter(opens).min(), end=pl.col("time").filter(~opens).max())
    known = ends.drop_nulls()
    return known.select("subject_id", "visit_key", visit_id="visit_key", start="start", end="end")


def _paired(moments: pl.DataFrame) -> pl.DataFrame:
    """Visits without a number: each admission with the first discharge before the next admission."""
    admissions = moments.filter("opens").select("subject_id", start="time").unique().sort("start")
    discharges = moments.filter(~pl.col("opens")).select("subject_id", end="time").unique().sort("end")
    paired = admissions.join_asof(
        discharges, left_on="start", right_on="end", by="subject_id", strategy="forward", coalesce=False
    ).sort("subject_id", "start")
    following = pl.col("start").shift(-1).over("subject_id")
    kept = paired.filter(pl.col("end").is_not_null() & (following.is_null() | (pl.col("end") <= following)))
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    return kept.select("subject_id", visit_key=number, visit_id=number, start="start", end="end")


def _or_nothing(frame: pl.DataFrame, name: str | None, dtype: pl.DataType) -> pl.Expr:
    present = name is not None and name in frame.columns
    return pl.col(str(name)).cast(dtype) if present else pl.lit(None, dtype=dtype)


def _flaw() -> pl.Expr:
    """The first of FLAWS that a row has."""
    size = pl.col("code").str.len_chars()
    return (
        pl.when(pl.col("subject_id").is_null())
        .then(pl.lit("subject_id"))
        .when(~size.is_between(1, cells.LONGEST_CODE).fill_null(value=False))
        .then(pl.lit("code"))
        .when(cells.unparsed("time", cells.known_time("time")))
        .then(pl.lit("time"))
        .when(cells.unparsed("numeric_value", cells.number("numeric_value")))
        .then(pl.lit("numeric_value"))
    )


# --- schemas ---------------------------------------------------------------------------------------------------------

_EVENTS = {"subject_id": "id", "time": "time", "code": "text", "numeric_value": "number"}
_CODES = {"code": "text", "description": "text", "parent_codes": "texts"}
_KINDS: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "id": ("int64", lambda kind: kind == pa.int64()),
    "time": ("timestamp[us]", lambda kind: kind == pa.timestamp("us")),
    "text": ("string", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    "number": ("a number", lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind)),
    "whole": ("int64", lambda kind: pa.types.is_integer(kind) and kind != pa.uint64()),
    "texts": ("list<string>", lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind)),
}


def _schema_problems(
    path: Path, schema: pa.Schema, *, kinds: Mapping[str, str], required: tuple[str, ...]
) -> Iterator[Problem]:
    """Columns that are missing or of another type than MEDS 0.4 has."""
    for name, kind in kinds.items():
        expected, fits = _KINDS[kind]
        empty = name not in required and name in schema.names and pa.types.is_null(schema.field(name).type)
        if empty:  # not one value: no type
            continue
        if name in required and name not in schema.names:
            found = ", ".join(schema.names)[:400]
            what, wanted = f"missing column {name}", f"a MEDS 0.4 file (found: {found})"
            yield Problem(what=what, where=str(path), expected=wanted, do="export as MEDS 0.4")
        elif name in schema.names and not fits(_type(schema, name)):
            what = f"column of type {schema.field(name).type}"
            yield Problem(what=what, where=f"{path}  {name}", expected=expected, do="export as MEDS 0.4")


def _code_problems(path: Path) -> list[Problem]:
    """What is wrong with the schema of `codes.parquet`, where there is one."""
    if not path.is_file():
        return []
    try:
        return list(_schema_problems(path, pq.read_schema(path), kinds=_CODES, required=("code",)))
    except parquetfile.DAMAGED as error:
        return list(parquetfile.damaged(path, error).problems)


def _type(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of a column's values."""
    kind = schema.field(name).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind
