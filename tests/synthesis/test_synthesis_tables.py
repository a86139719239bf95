"""Events -> tables in the source's own format -> extraction -> the same events, for every configuration shipped.

The made-up patients of tests/extraction/data come back as they were. So do patients whose codes are thrown together at
random, but for what the format has no room for, and that is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from decode_stories import CONFIGS, MIMIC, PIC, write_raw
from thrown_together import BIRTH, MADE_UP, SOURCES, thrown_together, write_events

from fairsynth import artefacts
from fairsynth.extraction import extract, read_rules
from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.synthesis.tables import write_tables


def read(events: Path) -> pl.DataFrame:
    return pl.read_parquet(events / "data" / "*.parquet")


def facts(folder: Path) -> dict:
    return artefacts.read_manifest(folder, kind="tables", verify=True)["facts"]


def there_and_back(events: Path, *, config: Path, root: Path) -> tuple[Path, Path]:
    """(the tables, the events that extraction makes of them)."""
    tables = write_tables(events, config=config, out=root / "written")
    return tables, extract(tables, config=config, root=root / "again")


def ages(events: pl.DataFrame) -> pl.DataFrame:
    """Every patient's age at the last admission, in whole years."""
    admitted = events.filter(pl.col("code").str.starts_with("ADMISSION//"))
    last = admitted.group_by("subject_id").agg(pl.col("time").max().alias("last"))
    born = events.filter(code=BIRTH).select("subject_id", born="time").join(last, on="subject_id")
    years = ((pl.col("last") - pl.col("born")).dt.total_days() / 365.25).floor().cast(pl.Int64)
    return born.select("subject_id", years=years).sort("subject_id")


# --- patients as extraction made them --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trip:
    """A source's made-up patients as events, the tables written from them, and the events of those."""

    source: str
    events: Path
    tables: Path
    again: Path


@pytest.fixture(scope="module", params=SOURCES)
def trip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trip:
    source, root = request.param, tmp_path_factory.mktemp("trip")
    events = extract(MADE_UP / SOURCES[source], config=CONFIGS / source, root=root)
    tables, again = there_and_back(events, config=CONFIGS / source, root=root)
    return Trip(source=source, events=events, tables=tables, again=again)


def test_made_up_patients_come_back_as_they_were(trip: Trip) -> None:
    before, after = read(trip.events), read(trip.again)
    bands = trip.source.startswith("diabetes130")  # a birth inside a band of ten years may be dated some days apart
    told = pl.col("code") != BIRTH if bands else pl.lit(value=True)
    assert after.filter(told).equals(before.filter(told))
    assert ages(after).equals(ages(before))
    found = facts(trip.tables)
    assert (found["unwritable"], found["implied"], found["retimed"]) == ({}, {}, 0)


def test_codes_come_back_with_their_descriptions_and_parents(trip: Trip) -> None:
    before, after = (pl.read_parquet(folder / "metadata" / "codes.parquet") for folder in (trip.events, trip.again))
    assert after.equals(before)


def test_patients_of_one_site_stay_that_site_s(trip: Trip) -> None:
    """The payer is no event: the cell that makes the patients the site's is filled in."""
    payers = {"medicare": "MC", "private": "BC", "public": "MD", "unrecorded": "?"}
    if trip.source.startswith("diabetes130"):
        written = pl.read_csv(trip.tables / "DIABETIC_DATA.csv", infer_schema=False)["PAYER_CODE"]
        assert set(written) == {payers[trip.source.split("/")[1]]}


@pytest.mark.parametrize("source", [MIMIC, PIC], ids=lambda source: source.name)
def test_tables_of_both_paper_sources_come_back(source, tmp_path: Path) -> None:
    config = CONFIGS / source.name
    events = extract(write_raw(tmp_path / "raw", source), config=config, root=tmp_path)
    tables, again = there_and_back(events, config=config, root=tmp_path)
    assert read(again).equals(read(events))
    assert facts(tables)["unwritable"] == {}


def test_a_source_in_meds_gets_meds(tmp_path: Path) -> None:
    events = extract(MADE_UP / "mimic4", config=CONFIGS / "mimic4", root=tmp_path)
    tables, again = there_and_back(events, config=CONFIGS / "meds", root=tmp_path)
    assert facts(tables)["rows"] == {"data": len(read(events))}
    before = read(events).with_columns(pl.col("code").str.replace("^RACE//", "ETHNICITY//"))  # its rules say so
    order = list(EVENT_SCHEMA)
    assert read(again).sort(order).equals(before.sort(order))


# --- what the format looks like --------------------------------------------------------------------------------------


def test_a_table_says_nothing_in_the_source_s_own_way(tmp_path: Path) -> None:
    config = CONFIGS / "diabetes130" / "unrecorded"
    events = extract(MADE_UP / "diabetes130", config=config, root=tmp_path)
    row = pl.read_csv(write_tables(events, config=config, out=tmp_path) / "DIABETIC_DATA.csv", infer_schema=False).row(
        0, named=True
    )
    assert {name: row[name] for name in ("RACE", "PAYER_CODE", "DIAG_2", "MEDICAL_SPECIALTY")} == dict.fromkeys(
        ("RACE", "PAYER_CODE", "DIAG_2", "MEDICAL_SPECIALTY"), "?"
    )
    assert (row["DIAG_1"], row["AGE"], row["TIME_IN_HOSPITAL"]) == ("276", "[0-10)", "1")
    assert (row["DISCHARGE_DISPOSITION_ID"], row["READMITTED"], row["INSULIN"]) == ("11", "NO", "No")


def test_text_files_are_written_as_the_source_writes_them(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    for path in (CONFIGS / "eicu").iterdir():
        text = path.read_text(encoding="utf-8")
        if path.name == "rules.yaml":
            text += 'text: {delimiter: ";", encoding: cp1252, missing: ["NULL"]}\n'
        (config / path.name).write_text(text, encoding="utf-8")
    events = extract(MADE_UP / "eicu", config=CONFIGS / "eicu", root=tmp_path)
    frame = read(events).with_columns(pl.col("code").str.replace("FUROSEMIDE", "FUROSÉMIDE"))
    changed = write_events(tmp_path / "changed", frame)
    tables, again = there_and_back(changed, config=config, root=tmp_path)
    assert b"FUROS\xc9MIDE" in (tables / "MEDICATION.csv").read_bytes()
    assert (tables / "MEDICATION.csv").read_text(encoding="cp1252").splitlines()[1].count(";NULL;") > 1
    assert read(again).equals(frame.sort(list(EVENT_SCHEMA), nulls_last=False))


# --- codes thrown together -------------------------------------------------------------------------------------------


def told(events: pl.DataFrame) -> Counter:
    """How often each thing is told, but for births."""
    kept = events.filter(pl.col("code") != BIRTH)
    return Counter(kept.select("subject_id", "visit_id", "time", "code", "numeric_value", "unit").rows())


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("source", ["mimic4", "eicu", "omop", "diabetes130/medicare"])
def test_what_a_format_cannot_hold_is_counted_and_everything_else_comes_back(source, seed, tmp_path: Path) -> None:
    config = CONFIGS / source
    frame = thrown_together(source, read_rules(config), seed=seed)
    tables, again = there_and_back(write_events(tmp_path, frame), config=config, root=tmp_path)
    before, after = told(frame), told(read(again))
    lost, made_up = kinds(before - after), kinds(after - before)
    assert lost
    assert lost == facts(tables)["unwritable"]
    assert made_up == facts(tables)["implied"]
    assert ages_are_kept(frame, read(again), source=source)


def kinds(events: Counter) -> dict[str, int]:
    """Kind of code -> number of events."""
    return dict(sorted(Counter(code.split("//")[0] for _, _, _, code, _, _ in events.elements()).items()))


def ages_are_kept(before: pl.DataFrame, after: pl.DataFrame, *, source: str) -> bool:
    """Ages in years are the same; in the bands of Diabetes-130 they are those of the band."""
    first, second = ages(before)["years"], ages(after)["years"]
    if source.startswith("diabetes130"):
        return bool(((first // 10) == (second // 10)).all())
    if source == "eicu":  # "> 89" is read as 91
        first = first.clip(upper_bound=90).replace(90, 91)
        second = second.clip(upper_bound=91)
    return first.equals(second)
