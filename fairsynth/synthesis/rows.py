"""Events -> the rows of one table, in text: which event goes to which row, and which cells it may write there.

In:  `Source` (events beside their visits and patients), a `TableRule`.   Out: `Rows`.
Never: an event lost without being counted; a rule of its own about a source.

A row of the visits table stands for a visit, one of the patients table for a patient, one of another table for what
`write.row` says. An event is unwritable when its row has no room for it: a fourth diagnosis beside three columns, a
second code where one cell holds one, a cell that contradicts a condition (`where`, `unless`) of an event or the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from fairsynth.extraction.event_rules import Conditions, EventRule
from fairsynth.extraction.rules import Rules, TableRule
from fairsynth.synthesis.inverse import own_cells

_PLACE = ("subject_id", "visit_id", "start", "end", "first_start", "last_start")


@dataclass(frozen=True, kw_only=True)
class Source:
    """`events` (a number each, and where they belong: _PLACE), `visits` and `patients` (a row each, and _PLACE)."""

    rules: Rules
    events: pl.DataFrame
    visits: pl.DataFrame
    patients: pl.DataFrame

    @classmethod
    def of(cls, events: pl.DataFrame, rules: Rules) -> Source:
        """The source of `events`."""
        visits = _visits(events, rules)
        ends = visits.group_by("subject_id").agg(
            pl.col("start").min().alias("first_start"), pl.col("start").max().alias("last_start")
        )
        patients = events.select("subject_id").unique().sort("subject_id").join(ends, on="subject_id", how="left")
        nowhere = [pl.lit(None, dtype=pl.Int64).alias("visit_id")]
        nowhere += [pl.lit(None, dtype=pl.Datetime("us")).alias(name) for name in ("start", "end")]
        placed = events.join(visits, on=["subject_id", "visit_id"], how="left", maintain_order="left")
        return cls(
            rules=rules,
            events=placed.join(ends, on="subject_id", how="left", maintain_order="left").with_row_index("event"),
            visits=visits.join(ends, on="subject_id", how="left", maintain_order="left").with_row_index("row"),
            patients=patients.with_columns(nowhere).with_row_index("row"),
        )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a table: _PLACE, time, a column of text for every column of the file, and for every rule whether the
    row was written for an event of it (`made_name`).

    `unwritable`: kind of code -> events that no row could hold. `retimed`: events whose time the row does not tell.
    """

    rows: pl.DataFrame
    unwritable: dict[str, int]
    retimed: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The events of one rule: `row` they go to, and `slot`, the number of the event among those of its row."""

    rule: EventRule
    number: int
    events: pl.DataFrame

    @property
    def fits(self) -> str:
        return f"fits {self.number}"

    @property
    def made(self) -> str:
        return made_name(self.number)


def made_name(number: int) -> str:
    """Where a row says whether it was written for an event of the table's rule `number`."""
    return f"made {number}"


def table_rows(table: TableRule, source: Source) -> Rows:
    """The rows that the events of `source` make in `table`."""
    stands_for = _stands_for(table, source.rules)
    mine = [source.events.filter(made_by(rule)) for rule in table.events]
    parts = [
        _placed(rule, number, events, stands_for, table=table, source=source)
        for number, (rule, events) in enumerate(zip(table.events, mine, strict=True))
    ]
    if stands_for == "event":
        filled = [_fill(_own_rows(part), [part], table, rules=source.rules) for part in parts]
        rows = pl.concat([rows for rows, _ in filled], how="diagonal")
        written = pl.concat([events for _, events in filled])
    else:
        rows, written = _fill(
            _shared_rows(parts, stands_for, table=table, source=source), parts, table, rules=source.rules
        )
    every = pl.concat(events.select("event", "code") for events in mine)
    lost = every.join(written.select("event"), on="event", how="anti")
    kinds = lost.group_by(pl.col("code").str.split("//").list.first()).len().sort("code")
    return Rows(rows=rows, unwritable=dict(kinds.iter_rows()), retimed=int(written.unique("event")["retimed"].sum()))


def made_by(rule: EventRule) -> pl.Expr:
    """Whether `rule` makes the event: the vectorised `Template.invert(code) is not None`."""
    template = rule.template
    if template.column is None:
        return pl.col("code") == template.literal
    return pl.col("code").str.starts_with(template.literal) & (pl.col("code").str.len_chars() > len(template.literal))


# --- visits ----------------------------------------------------------------------------------------------------------


def _visits(events: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """subject_id, visit_id, start, end: from the events of the visits table that happen at a visit's start or end."""
    table = rules.table(rules.visits.table)

    def at(edge: str, column: str | None) -> pl.Expr:
        own = [rule for rule in table.events if rule.time is not None and rule.time == column]
        own += [rule for rule in table.events if rule.time is None and rule.at == edge]
        return pl.col("time").filter(pl.any_horizontal(pl.lit(value=False), *(made_by(rule) for rule in own)))

    return (
        events.filter(pl.col("visit_id").is_not_null())
        .group_by("subject_id", "visit_id")
        .agg(
            pl.coalesce(at("start", rules.visits.start).min(), pl.col("time").min()).alias("start"),
            pl.coalesce(at("end", rules.visits.end).max(), pl.col("time").max()).alias("end"),
        )
        .sort("subject_id", "start", "visit_id")
    )


# --- which row -------------------------------------------------------------------------------------------------------


def _stands_for(table: TableRule, rules: Rules) -> str:
    if table.file == rules.visits.table:
        return "visit"
    return "patient" if table.file == rules.patients else table.write.row


def _placed(
    rule: EventRule, number: int, events: pl.DataFrame, stands_for: str, *, table: TableRule, source: Source
) -> _Part:
    """The events of `rule` with `row` and `slot`; those that belong to no row are not among them."""
    if stands_for == "visit":
        events = _in_visits(events, everywhere=rule.static or bool(rule.age or rule.date), visits=source.visits)
    elif stands_for == "patient":
        events = events.join(source.patients.select("row", "subject_id"), on="subject_id", how="inner")
    else:
        events = events.with_columns(row=pl.col("event"))
    needs_visit = table.subject is None or (source.rules.artificial and bool(rule.times))
    if needs_visit:
        events = events.filter(pl.col("start").is_not_null())
    slot = pl.int_range(pl.len()).over("row").alias("slot")
    return _Part(rule=rule, number=number, events=events.with_columns(slot))


def _in_visits(events: pl.DataFrame, *, everywhere: bool, visits: pl.DataFrame) -> pl.DataFrame:
    """Events with the row of their visit: their own; every one of the patient for what is told `everywhere`; else the
    visit that began last before them."""
    named = events.filter(pl.col("visit_id").is_not_null())
    other = events.filter(pl.col("visit_id").is_null()).drop("visit_id", "start", "end")
    own = named.join(visits.select("row", "subject_id", "visit_id"), on=["subject_id", "visit_id"], how="inner")
    places = visits.select("row", "subject_id", "visit_id", "start", "end")
    if everywhere:
        found = other.join(places, on="subject_id", how="inner")
    else:
        dated = other.drop_nulls("time").sort("time")
        found = dated.join_asof(
            places.sort("start"),
            left_on="time",
            right_on="start",
            by="subject_id",
            check_sortedness=False,
            coalesce=False,
        ).drop_nulls("row")
    return pl.concat([own, found.select(own.columns)]).sort("event", "row")


def _own_rows(part: _Part) -> pl.DataFrame:
    """One row an event."""
    return part.events.select("row", *_PLACE, "time")


def _shared_rows(parts: list[_Part], stands_for: str, *, table: TableRule, source: Source) -> pl.DataFrame:
    """All visits (patients) in the table that lists them, elsewhere those that have an event there."""
    rows = source.visits if stands_for == "visit" else source.patients
    if table.file not in (source.rules.visits.table, source.rules.patients):
        used = pl.concat([part.events.select("row") for part in parts]).unique()
        rows = rows.join(used, on="row", how="semi", maintain_order="left")
    return rows.select("row", *_PLACE, pl.lit(None, dtype=pl.Datetime("us")).alias("time"))


# --- which cells -----------------------------------------------------------------------------------------------------


def _fill(
    rows: pl.DataFrame, parts: list[_Part], table: TableRule, *, rules: Rules
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`rows` with the cells of the events, and event, retimed of those that are written.

    First the conditions of all events of a row narrow what its cells may be; then each event writes its own cells if
    they are free and allowed; then conditions fill the cells that they need, and `sets` the rest.
    """
    rows = rows.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in table.columns)
    restricted = {*table.where, *(column for part in parts for column in part.rule.where)}
    rows = rows.with_columns(_listed(table.where, column).alias(_allowed(column)) for column in sorted(restricted))
    for part in parts:
        rows = _narrowed(rows, part)
    written = [pl.DataFrame(schema={"event": pl.UInt32, "retimed": pl.Boolean})]
    for part in parts:
        for slot in range(max(1, len(part.rule.columns))):
            rows, events = _put(rows, part, slot=slot, restricted=restricted, rules=rules)
            written.append(events)
    for column in sorted(restricted):
        needed = pl.col(_allowed(column)).is_not_null() & ~pl.col(_allowed(column)).list.contains("")
        first = pl.when(needed).then(pl.col(_allowed(column)).list.first())
        rows = rows.with_columns(pl.col(column).fill_null(first))
    for part in parts:
        sets = {column: pl.when(part.made).then(pl.lit(text)) for column, text in part.rule.sets.items()}
        rows = rows.with_columns(pl.col(column).fill_null(text) for column, text in sets.items())
    made = [part.made for part in parts]
    return rows.select("row", *_PLACE, "time", *table.columns, *made), pl.concat(written)


def _allowed(column: str) -> str:
    return f"allowed {column}"


def _listed(conditions: Conditions, column: str) -> pl.Expr:
    """The cells that `conditions` allow in `column`; null: any."""
    return pl.lit(_cells(conditions, column) or None, dtype=pl.List(pl.String))


def _cells(conditions: Conditions, column: str) -> list[str]:
    cells = conditions.get(column, ())
    return [cells] if isinstance(cells, str) else list(cells)


def _narrowed(rows: pl.DataFrame, part: _Part) -> pl.DataFrame:
    """Let the conditions of a rule narrow the cells of the rows that have its event, where some cell is left."""
    here = part.events.select("row").unique().with_columns(here=pl.lit(value=True))
    rows = rows.join(here, on="row", how="left", maintain_order="left")
    left = {}
    for column in part.rule.where:
        listed, allowed = _cells(part.rule.where, column), pl.col(_allowed(column))
        both = allowed.list.eval(pl.element().filter(pl.element().is_in(listed)))
        left[column] = pl.when(allowed.is_null()).then(_listed(part.rule.where, column)).otherwise(both)
    fits = pl.all_horizontal(pl.col("here"), *(cells.list.len() > 0 for cells in left.values())).fill_null(value=False)
    rows = rows.with_columns(
        fits.alias(part.fits),
        pl.lit(value=False).alias(part.made),
        **{f"left {column}": cells for column, cells in left.items()},
    )
    narrowed = [
        pl.when(part.fits).then(pl.col(f"left {column}")).otherwise(pl.col(_allowed(column))).alias(_allowed(column))
        for column in left
    ]
    return rows.with_columns(narrowed).drop("here", *(f"left {column}" for column in left))


def _put(
    rows: pl.DataFrame, part: _Part, *, slot: int, restricted: Iterable[str], rules: Rules
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Write the own cells of the part's events number `slot`, where they are free and allowed."""
    cells = own_cells(part.rule, slot=slot, rules=rules)
    new = part.events.filter(pl.col("slot") == slot).select(
        "row", "event", _is_retimed(part.rule).alias("retimed"), **{f"new {name}": cell for name, cell in cells.items()}
    )
    rows = rows.join(new, on="row", how="left", maintain_order="left")
    fits = [pl.col("event").is_not_null(), pl.col(part.fits)]
    fits += [_free(column, restricted=restricted, unless=part.rule.unless) for column in cells]
    fits += [
        _can_differ(column, part.rule.unless, restricted=restricted)
        for column in part.rule.unless
        if column not in cells
    ]
    rows = rows.with_columns(writes=pl.all_horizontal(fits))
    written = rows.filter("writes").select("event", "retimed")
    rows = rows.with_columns(
        (pl.col(part.made) | pl.col("writes")).alias(part.made),
        *(pl.when("writes").then(pl.col(f"new {name}")).otherwise(pl.col(name)).alias(name) for name in cells),
    )
    return rows.drop("event", "retimed", "writes", *(f"new {name}" for name in cells)), written


def _free(column: str, *, restricted: Iterable[str], unless: Conditions) -> pl.Expr:
    """Whether the new cell may stand in `column`."""
    old, new = pl.col(column), pl.col(f"new {column}")
    free = old.is_null() | old.eq_missing(new)
    if column in restricted:
        allowed = pl.col(_allowed(column))
        free &= allowed.is_null() | allowed.list.contains(new.fill_null(""))
    if column in unless:
        free &= ~new.fill_null("").is_in(_cells(unless, column))
    return free


def _can_differ(column: str, unless: Conditions, *, restricted: Iterable[str]) -> pl.Expr:
    """Whether `column` can still hold something else than what an event must not meet."""
    listed = _cells(unless, column)
    differs = pl.col(column).is_null() | ~pl.col(column).is_in(listed)
    if column in restricted:
        left = pl.col(_allowed(column)).list.eval(~pl.element().is_in(listed)).list.any()
        differs &= pl.col(_allowed(column)).is_null() | left
    return differs


def _is_retimed(rule: EventRule) -> pl.Expr:
    """Whether reading the row would give the event another time: that of the visit's start or end."""
    if rule.at is None or rule.times or rule.age or rule.date:
        return pl.lit(value=False)
    return pl.col("time") != pl.col(rule.at)
