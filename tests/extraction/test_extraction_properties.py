"""Laws of extraction: codes lead back, every row has the fate that a row-by-row oracle gives it, order and format of
files do not matter, an artificial calendar keeps visits apart, sites made of one source share no patient."""

import json
import tempfile
from contextlib import ExitStack
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pyarrow as pa
import pytest
from extraction_worlds import COLUMNS, SITE, ZERO, World, look, oracle, place, rules, worlds
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fairsynth.artefacts import MANIFEST
from fairsynth.config import FirstVisit
from fairsynth.extraction import cells, engine, extract, frame, shards, tables
from fairsynth.extraction.casts import Casts, time_lengths
from fairsynth.extraction.event_rules import EventRule
from fairsynth.extraction.events import attached, makers, stays
from fairsynth.extraction.frame import ARTIFICIAL_GAP
from fairsynth.extraction.rules import DictionaryRule, Rules, TableRule
from fairsynth.extraction.templates import Parent, Template

CELL = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def folder():
    """A folder that empties itself."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def fresh(folder: Path) -> Path:
    """A new folder for one example."""
    return Path(tempfile.mkdtemp(dir=folder))


# --- codes lead back -------------------------------------------------------------------------------------------------

LITERAL = st.text("AB/", min_size=1, max_size=3)
TEMPLATE = st.builds(lambda literal, column: literal + column, LITERAL, st.sampled_from(["", "{X}"]))


@given(text=TEMPLATE, cell=CELL)
def test_code_to_cells_to_code_gives_the_same_code(text, cell):
    template = Template.parse(text)
    (code,) = pl.DataFrame({"X": [cell]}).select(code=template.filled())["code"]
    cells = template.invert(code)
    assert cells == ({"X": cell} if template.column else {})
    (again,) = pl.DataFrame(cells or {"X": [""]}).select(code=template.filled())["code"]
    assert again == code


@settings(max_examples=60)
@given(one=TEMPLATE, other=TEMPLATE)
def test_templates_overlap_exactly_when_some_code_comes_from_both(one, other):
    first, second = Template.parse(one), Template.parse(other)
    cells = ["".join(letters) for size in range(1, 4) for letters in _words(size)]
    made = [{first.literal + cell for cell in (cells if first.column else [""])} for first in (first, second)]
    assert first.overlaps(second) == second.overlaps(first) == bool(made[0] & made[1])


def _words(size: int) -> list[str]:
    return [""] if size == 0 else [letter + word for letter in "AB/" for word in _words(size - 1)]


@settings(max_examples=40)
@given(one=TEMPLATE, other=TEMPLATE)
def test_rules_with_overlapping_templates_are_refused(one, other):
    data = rules().model_dump(by_alias=True, mode="json")
    people = data["tables"][0] | {"columns": ["WHO", "SEX", "X"], "events": [{"code": one}, {"code": other}]}
    data["tables"] = [people, *data["tables"][1:]]
    if Template.parse(one).overlaps(Template.parse(other)):
        with pytest.raises(ValidationError, match="could both make the same code"):
            Rules.model_validate(data)
    else:
        others = [Template.parse(text) for text in ("A//{X}", "B//{X}", "ADMISSION//X")]
        assume(not any(Template.parse(text).overlaps(known) for text in (one, other) for known in others))
        assert Rules.model_validate(data).table_of(Template.parse(one).literal + "x" * ("{" in one)).file == "PEOPLE"


@given(
    cells=st.dictionaries(CELL | st.just(""), CELL, max_size=4).filter(
        lambda cells: len(set(cells.values())) == len(cells)
    ),
    others=st.lists(CELL, max_size=4),
)
def test_a_translated_code_leads_back_to_a_cell_that_makes_it(cells, others):
    rule = EventRule.model_validate({"code": "A//{X}", "cells": cells})
    table = TableRule.model_validate({"file": "T", "columns": ["SUBJECT_ID", "X"], "visit": None, "events": [rule]})
    (maker,) = makers(table, clock=False)

    def code_of(cell: str) -> str:
        return pl.DataFrame({"X": [cell or None]}, schema={"X": pl.String}).select(code=maker.code)["code"][0]

    for cell in (*cells, *others):
        code = code_of(cell)
        back = table.parse_code(code)
        assert code_of(back["X"]) == code
        if cell in cells or cell not in cells.values():
            assert back == {"X": cell}


@given(code=CELL, words=CELL, system=st.text("ABC", min_size=1), parent=CELL)
def test_a_dictionary_row_leads_back_from_its_code_and_parent(code, words, system, parent):
    rule = DictionaryRule.model_validate(
        {
            "file": "D",
            "columns": ["CODE", "WORDS", "SYSTEM", "PARENT"],
            "code": ["DIAG//{CODE}", "PROC//{CODE}"],
            "description": "WORDS",
            "parents": ["{SYSTEM}/{PARENT}"],
        }
    )
    row = {"CODE": code, "WORDS": words, "SYSTEM": system, "PARENT": parent}
    for template in rule.codes:
        filled = pl.DataFrame([row]).select(code=template.filled(), parent=Parent(text="{SYSTEM}/{PARENT}").filled())
        made, name = filled.row(0)
        assert rule.cells(made, description=words, parents=[name]) == row


CONDITION = st.dictionaries(
    st.sampled_from(["X", "Y"]),
    st.lists(st.sampled_from(["", "a", "b"]), min_size=1, max_size=2, unique=True),
    min_size=1,
    max_size=2,
)


@settings(max_examples=60)
@given(conditions=CONDITION)
def test_where_keeps_the_rows_that_fit_in_every_column_and_unless_those_that_fit_in_none(conditions):
    rows = [{"X": x, "Y": y} for x in ("", "a", "b", "c") for y in ("", "a", "b", "c")]
    frame = pl.DataFrame(rows).with_columns(pl.when(pl.all() != "").then(pl.all()))
    for key, fits in (("where", all), ("unless", any)):
        rule = {"code": "A", key: conditions}
        table = {"file": "T", "columns": ["SUBJECT_ID", "X", "Y"], "visit": None, "events": [rule]}
        (maker,) = makers(TableRule.model_validate(table), clock=False)
        expected = [fits(row[column] in cells for column, cells in conditions.items()) for row in rows]
        assert frame.select(applies=maker.applies)["applies"].to_list() == [one == (key == "where") for one in expected]


# --- every row has its fate ------------------------------------------------------------------------------------------


VISIT_SCHEMA = {
    "subject_id": pl.Int64,
    "visit_id": pl.Int64,
    "start": pl.Datetime("us"),
    "end": pl.Datetime("us"),
}
MOMENT_SCHEMA = {"number": pl.Int64, "subject_id": pl.Int64, "time": pl.Datetime("us"), "visit_id": pl.Int64}


@settings(max_examples=40, deadline=None)
@given(world=worlds(), attach=st.sampled_from([True, False, "day"]))
def test_rows_and_events_are_those_of_an_oracle_that_reads_row_by_row(folder, world, attach):
    seen, events = look(world.write(fresh(folder) / "data"), rules(attach))
    fates, expected = oracle(world, attach=attach)
    _, report = seen.checked()
    notes = report.tables[2]
    assert notes.left_out | {"kept": notes.kept} == {"kept": 0} | fates
    assert [table.rows for table in report.tables] == [len(rows) for rows in world.tables.values()]
    assert all(table.rows == table.kept + sum(table.left_out.values()) for table in report.tables)
    assert events == expected
    assert report.patients == len(world.tables["PEOPLE"])
    outside = sum(event[4] is None and not event[2].startswith("GENDER") for event in events)
    assert sum(table.events_without_visit - table.events_attached for table in report.tables) == outside


HOURS = st.integers(0, 10).map(lambda step: ZERO + timedelta(hours=4 * step))
STAY = st.tuples(st.integers(1, 2), HOURS, st.integers(-1, 8))


@settings(max_examples=100, deadline=None)
@given(
    drawn=st.lists(STAY, max_size=5),
    moments=st.lists(st.tuples(st.integers(1, 3), st.none() | HOURS), min_size=1, max_size=8),
    by_day=st.booleans(),
)
def test_an_event_is_attached_to_the_visit_that_a_search_through_all_finds(drawn, moments, by_day):
    known = [(who, 10 + i, start, start + timedelta(hours=4 * steps)) for i, (who, start, steps) in enumerate(drawn)]
    visits = pl.DataFrame(known, schema=VISIT_SCHEMA, orient="row")
    rows = [(number, who, time, None) for number, (who, time) in enumerate(moments)]
    events = pl.DataFrame(rows, schema=MOMENT_SCHEMA, orient="row")
    found = attached(events, stays(visits), by_day=by_day).sort("number")
    expected = [None if time is None else place(who, time, known, by_day=by_day) for who, time in moments]
    assert found["visit_id"].to_list() == expected
    assert found.drop("visit_id").equals(events.drop("visit_id"))


@settings(max_examples=8, deadline=None)
@given(world=worlds(), data=st.data())
def test_order_of_rows_and_columns_format_and_size_of_batches_do_not_matter(folder, world, data):
    here = fresh(folder)
    turned = World({name: data.draw(st.permutations(rows)) for name, rows in world.tables.items()})
    order = {name: data.draw(st.permutations(rows)) for name, rows in _columns(world).items()}
    ending = data.draw(st.sampled_from([".csv", ".csv.gz", ".parquet"]))
    block = data.draw(st.sampled_from([tables.BLOCK_BYTES, 300]))
    held = data.draw(st.sampled_from([shards.HELD_EVENTS, 0, 1, 3]))
    one = _content(world.write(here / "one"), here / "one site")
    with ExitStack() as stack:
        stack.enter_context(patch.object(tables, "BLOCK_BYTES", block))
        stack.enter_context(patch.object(shards, "HELD_EVENTS", held))
        other = _content(turned.write(here / "other", ending=ending, order=order), here / "other site")
    assert one == other


def _columns(world: World) -> dict[str, list[str]]:
    return {name: list(COLUMNS[name]) for name in world.tables}


def _content(data: Path, root: Path) -> tuple[str, dict[str, int]]:
    with patch.object(engine, "read_source", lambda _: (SITE, rules())):
        (data / "site.yaml").touch()
        (data / "rules.yaml").touch()
        out = extract(data, config=data, root=root)
    return json.loads((out / MANIFEST).read_text())["content"], json.loads((out / "flow.json").read_text())


@settings(max_examples=10, deadline=None)
@given(world=worlds(), size=st.integers(1, 20))
def test_shards_hold_whole_patients_in_order_and_together_what_one_shard_holds(folder, world, size):
    data = world.write(fresh(folder) / "data")
    (whole, parts) = (_shards(data, shard_events=number) for number in (10**6, size))
    assert pl.concat(parts).equals(pl.concat(whole))
    patients = [who for part in parts for who in sorted(set(part["subject_id"]))]
    assert patients == sorted(set(patients))


def _shards(data: Path, *, shard_events: int) -> list[pl.DataFrame]:
    """The events, shard by shard, of a source whose every patient is a bucket."""
    with patch.object(shards, "SHARD_EVENTS", shard_events), patch.object(frame, "PATIENTS_A_BUCKET", 1):
        _content(data, data.parent / f"site {shard_events}")
    return [pl.read_parquet(path) for path in sorted((data.parent / f"site {shard_events}" / "events/data").iterdir())]


# --- sources without dates, and several sites of one source -----------------------------------------------------------

CLOCK = Rules.model_validate(
    {
        "schema": "fairsynth.rules/1",
        "identifiers": {"subject": "text", "visit": "text"},
        "patients": "STAYS",
        "visits": {
            "table": "STAYS",
            "start": "IN",
            "end": "OUT",
            "clock": {"unit": "minutes", "order": ["YEAR", "NUMBER"]},
        },
        "tables": [
            {
                "file": "STAYS",
                "columns": ["WHO", "STAY", "YEAR", "NUMBER", "IN", "OUT", "PLACE"],
                "subject": "WHO",
                "visit": "STAY",
                "events": [{"code": "ADMISSION//X", "at": "start"}, {"code": "LEFT", "time": "OUT"}],
            }
        ],
    }
)
OFFSET = st.integers(-10_000_000, 10_000_000)  # minutes: 19 years
TIMELESS = st.lists(
    st.fixed_dictionaries(
        {
            "WHO": st.sampled_from(["p", "q", "Ω"]),
            "YEAR": st.sampled_from(["2014", "2015", ""]),
            "NUMBER": st.sampled_from(["1", "2", "10", "16777217", ""]),
            "IN": OFFSET,
            "OUT": OFFSET,
            "PLACE": st.sampled_from(["a", "b", "c", ""]),
        }
    ),
    min_size=1,
    max_size=8,
)


def timeless(folder: Path, drawn: list[dict]) -> tuple[Path, list[dict]]:
    """Write stays, numbered in the order drawn."""
    rows = [{**row, "STAY": f"s{number}"} for number, row in enumerate(drawn)]
    data = fresh(folder)
    pl.DataFrame(rows).select(CLOCK.table("STAYS").columns).write_csv(data / "STAYS.csv")
    return data, rows


def when(row: dict) -> tuple:
    """What puts a patient's stays in order; a number that is not given comes last."""
    return (*((cell == "", float(cell or 0)) for cell in (row["YEAR"], row["NUMBER"])), row["STAY"])


@settings(max_examples=25, deadline=None)
@given(drawn=TIMELESS)
def test_an_artificial_calendar_keeps_visits_apart_in_order_and_exact_inside(folder, drawn):
    data, rows = timeless(folder, drawn)
    seen, events = look(data, CLOCK)
    found = {row["visit_key"]: row for row in seen.checked()[0].visits.iter_rows(named=True)}
    assert len(found) == len(rows)
    for row in rows:
        visit = found[row["STAY"]]
        assert visit["start"] - visit["zero"] == timedelta(minutes=row["IN"])
        assert visit["end"] - visit["zero"] == timedelta(minutes=row["OUT"])
        assert visit["zero"] + timedelta(minutes=row["OUT"]) in {event[1] for event in events if event[2] == "LEFT"}
    for who in {row["WHO"] for row in rows}:
        own = [found[row["STAY"]] for row in sorted((row for row in rows if row["WHO"] == who), key=when)]
        for before, after in pairwise(own):
            assert max(before["start"], before["end"]) + ARTIFICIAL_GAP <= after["start"]


@settings(max_examples=15, deadline=None)
@given(drawn=TIMELESS)
def test_sites_made_of_one_source_share_no_patient_and_lose_none(folder, drawn):
    data, rows = timeless(folder, drawn)
    patients: list[str] = []
    for cell in ("a", "b", "c", ""):
        site = SITE.model_copy(update={"first_visit": FirstVisit(column="PLACE", cells=(cell,))})
        seen, _ = look(data, CLOCK, site=site)
        known, report = seen.checked()
        here = known.patients.filter(~pl.col("elsewhere"))["subject_key"].to_list()
        first = {who: min((row for row in rows if row["WHO"] == who), key=when) for who in {row["WHO"] for row in rows}}
        assert sorted(here) == sorted(who for who, row in first.items() if row["PLACE"] == cell)
        assert report.tables[0].left_out.get("another site's patient", 0) == sum(row["WHO"] not in here for row in rows)
        patients += here
    assert sorted(patients) == sorted({row["WHO"] for row in rows})


# --- fast and slow parsing --------------------------------------------------------------------------------------------

DIGITS = st.text("0123456789", min_size=1, max_size=4)
ODD = st.sampled_from(
    ["", " ", "+1", "-0", "007", "0x1F", "0X1f", "1e5", "1e400", "nan", "inf", "-Infinity", "1_0", ".5", "5."]
)
WHOLE = st.one_of(DIGITS, ODD, st.integers(-(2**70), 2**70).map(str), st.text("0123456789+-.eExX nai", max_size=6))
PLACE = st.sampled_from(["2020", "0000", "1699", "2500", "9999", "20"]), st.sampled_from(["01", "02", "13", "1"])
TIME = st.one_of(
    st.builds(
        "{}-{}-{}{}{}:{}:{}".format,
        *PLACE,
        st.sampled_from(["01", "29", "30", "31", "1"]),
        st.sampled_from([" ", "T", "  "]),
        *(st.sampled_from(["00", "23", "24", "7"]), *[st.sampled_from(["00", "59", "60"])] * 2),
    ),
    st.builds("{}-{}-{}".format, *PLACE, st.sampled_from(["01", "29", "30"])),
    st.text("0123456789-: TZ+.", max_size=20),
)


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["integer", "real", "time"]), data=st.data(), days=st.booleans())
def test_what_the_fast_parser_makes_of_cells_is_what_the_exact_one_makes(kind, data, days):
    drawn = data.draw(st.lists(TIME if kind == "time" else WHOLE, min_size=1, max_size=3))
    formats = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d") if days else ("%Y-%m-%d %H:%M:%S",)
    text = pa.array([cell or None for cell in drawn], pa.string())
    batch = pa.RecordBatch.from_arrays([text], names=["X"])
    casts = Casts(kinds={"X": kind}, time_lengths=time_lengths(formats))
    hexadecimal = any("x" in cell.lower() for cell in drawn)
    typed = pl.DataFrame(casts.apply(batch, may_be_hexadecimal=hexadecimal))
    frames = (_trimmed(frame) for frame in (pl.DataFrame(batch), typed))
    slow, fast = (frame.select(_parsed(kind, frame.schema["X"], formats)).to_series() for frame in frames)
    assert fast.equals(slow, null_equal=True)


def _trimmed(frame: pl.DataFrame) -> pl.DataFrame:
    text = pl.col(pl.String).str.strip_chars()
    return frame.with_columns(pl.when(text != "").then(text))


def _parsed(kind: str, dtype: pl.DataType, formats: tuple[str, ...]) -> pl.Expr:
    if kind == "time":
        known = rules().model_copy(update={"date_formats": formats})
        return cells.time("X", known) if dtype == pl.String else cells.known_time("X")
    return cells.real("X") if kind == "real" else cells.identifier("X", "number", title="X")
