"""Laws of extraction: codes lead back, every row has the fate that a row-by-row oracle gives it, order and format of
files do not matter, an artificial calendar keeps visits apart, sites made of one source share no patient."""

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from extraction_worlds import SITE, World, look, oracle, rules, worlds
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fairsynth.artefacts import MANIFEST
from fairsynth.extraction import engine, extract, shards, tables
from fairsynth.extraction.event_rules import EventRule
from fairsynth.extraction.events import makers
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


@settings(max_examples=50, deadline=None)
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


@settings(max_examples=12, deadline=None)
@given(world=worlds(), data=st.data())
def test_order_of_rows_and_columns_format_and_size_of_batches_do_not_matter(folder, world, data):
    place = fresh(folder)
    turned = World({name: data.draw(st.permutations(rows)) for name, rows in world.tables.items()})
    order = {name: data.draw(st.permutations(rows)) for name, rows in _columns(world).items()}
    ending = data.draw(st.sampled_from([".csv", ".csv.gz", ".parquet"]))
    block = data.draw(st.sampled_from([tables.BLOCK_BYTES, 300]))
    held = data.draw(st.sampled_from([shards.HELD_EVENTS, 0, 1, 3]))
    one = _content(world.write(place / "one"), place / "one site")
    with ExitStack() as stack:
        stack.enter_context(patch.object(tables, "BLOCK_BYTES", block))
        stack.enter_context(patch.object(shards, "HELD_EVENTS", held))
        other = _content(turned.write(place / "other", ending=ending, order=order), place / "other site")
    assert one == other


def _columns(world: World) -> dict[str, list[str]]:
    from extraction_worlds import COLUMNS

    return {name: list(COLUMNS[name]) for name in world.tables}


def _content(data: Path, root: Path) -> tuple[str, dict[str, int]]:
    with patch.object(engine, "read_source", lambda _: (SITE, rules())):
        (data / "site.yaml").touch()
        (data / "rules.yaml").touch()
        out = extract(data, config=data, root=root)
    return json.loads((out / MANIFEST).read_text())["content"], json.loads((out / "flow.json").read_text())
