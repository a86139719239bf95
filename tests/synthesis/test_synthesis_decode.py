"""Records -> events -> tables -> extraction -> records: the same tokens come back."""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from pathlib import Path

import meds
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from decode_stories import CONFIGS, MIMIC, PIC, Source, make_plan, prepared, write_raw

from fairsynth import artefacts
from fairsynth.errors import ArtefactError
from fairsynth.extraction.columns import EVENT_SCHEMA
from fairsynth.extraction.rules import read_rules
from fairsynth.synthesis.decode import FIRST_ID, label_visit_follows, write_events, write_tables
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True)
class World:
    """A site, its records decoded into events and tables, and what extraction makes of those tables."""

    source: Source
    root: Path
    records: Records
    cohort: Cohort
    events: Path
    tables: Path
    again: Records  # in the order of `records`


@pytest.fixture(scope="module", params=[MIMIC, PIC], ids=lambda source: source.name)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), request.param)


def make_world(folder: Path, source: Source, *, task: str = "in_hospital_mortality") -> World:
    plan = make_plan(source, task=task)
    cohort = prepared(folder / "site", data=write_raw(folder / "raw", source), source=source, plan=plan)
    records = Records.concatenate([cohort.train, cohort.validation, cohort.held_out])
    events = write_events(records, root=folder / "site", out=folder / "synthetic", seed=3)
    tables = write_tables(events, config=CONFIGS / source.name, out=folder / "synthetic")
    back = prepared(folder / "again", data=tables, source=source, plan=plan, vocabulary=cohort.vocabulary)
    patients = pl.read_parquet(folder / "again" / "visits" / "patients.parquet").sort("subject_id")
    order = np.concatenate(
        [patients.filter(split=name)["subject_id"].to_numpy() for name in ("train", "validation", "held_out")]
    )
    again = Records.concatenate([back.train, back.validation, back.held_out]).take(np.argsort(order))
    return World(
        source=source,
        root=folder / "site",
        records=records,
        cohort=cohort,
        events=events,
        tables=tables,
        again=again,
    )


def tokens(records: Records, names: tuple[str, ...]) -> list[set[str]]:
    """The token names of every visit."""
    ends = records.visit_offsets
    return [{names[code] for code in records.codes[a:b]} for a, b in itertools.pairwise(ends)]


def told_again(world: World) -> list[set[str]]:
    """The token names of every visit that came back, without lengths of closed visits that the records do not tell: a
    bin that no training patient has is in no vocabulary, and such a length is drawn."""
    names, records = world.cohort.vocabulary.names, world.records
    last = set(records.patient_offsets[1:] - 1)
    found = zip(tokens(world.again, names), tokens(records, names), strict=True)
    return [
        {name for name in again if visit in last or not name.startswith("LOS//") or told(before)}
        for visit, (again, before) in enumerate(found)
    ]


def told(visit: set[str]) -> bool:
    return any(name.startswith("LOS//") for name in visit)


def contexts(records: Records, names: tuple[str, ...]) -> list[set[str]]:
    ends = records.context_offsets
    return [{names[code] for code in records.context[a:b]} for a, b in itertools.pairwise(ends)]


# --- the contract ----------------------------------------------------------------------------------------------------


def test_the_same_tokens_come_back_in_every_visit(world: World) -> None:
    names = world.cohort.vocabulary.names
    kinds = {name.split("//")[0] for visit in tokens(world.records, names) for name in visit}
    expected = {"DX", "RX", "LAB", "UNIT", "GAP", "LOS"} | ({"PX"} if world.source.name == "mimic3" else set())
    assert kinds == expected  # the fixture exercises every kind
    assert told_again(world) == tokens(world.records, names)


def test_the_same_patients_come_back(world: World) -> None:
    names = world.cohort.vocabulary.names
    assert np.array_equal(world.again.patient_offsets, world.records.patient_offsets)
    assert np.array_equal(world.again.label, world.records.label)
    assert set(world.records.label) == {0, 1}
    assert np.array_equal(world.again.group, world.records.group)
    assert contexts(world.again, names) == contexts(world.records, names)


@pytest.mark.parametrize("source", [MIMIC, PIC], ids=lambda source: source.name)
def test_the_visit_whose_outcome_is_the_label_is_written_after_the_record(tmp_path: Path, source: Source) -> None:
    world = make_world(tmp_path, source, task="mortality_next_visit")
    names = world.cohort.vocabulary.names
    assert told_again(world) == tokens(world.records, names)
    assert np.array_equal(world.again.label, world.records.label)
    written = pl.read_parquet(world.events / "data" / "0.parquet")
    assert written["visit_id"].n_unique() - 1 == world.records.visits + len(world.records)  # null is one of them


def test_a_task_says_itself_whether_its_label_visit_follows() -> None:
    assert label_visit_follows("mortality_next_visit")
    assert not label_visit_follows("in_hospital_mortality")


# --- events ----------------------------------------------------------------------------------------------------------


def test_events_are_a_meds_data_set(world: World) -> None:
    table = pq.read_table(world.events / "data" / "0.parquet")
    assert table.schema.names == list(EVENT_SCHEMA)
    meds.DataSchema.validate(table.select(["subject_id", "time", "code", "numeric_value"]))
    codes = pq.read_table(world.events / "metadata" / "codes.parquet")
    meds.CodeMetadataSchema.validate(codes)
    assert set(codes["code"].to_pylist()) == set(table["code"].to_pylist())
    manifest = artefacts.read_manifest(world.events, kind="events", verify=True)
    assert manifest["facts"]["synthetic"] is True
    assert manifest["facts"]["undecodable"] == {}


def test_no_identifier_or_date_can_be_taken_for_a_real_one(world: World) -> None:
    events = pl.read_parquet(world.events / "data" / "0.parquet")
    assert events["subject_id"].min() == FIRST_ID
    assert events["visit_id"].min() == FIRST_ID
    assert events[["subject_id", "visit_id"]].max().max_horizontal().item() < 2**31
    visits = events.filter(pl.col("visit_id").is_not_null())
    assert visits["time"].dt.year().min() >= 2220
    assert visits["time"].dt.year().max() < 2262


def test_dates_are_in_order(world: World) -> None:
    events = pl.read_parquet(world.events / "data" / "0.parquet").filter(pl.col("visit_id").is_not_null())
    kind = pl.col("code").str.split("//").list.first()
    visits = (
        events.group_by("subject_id", "visit_id")
        .agg(
            pl.col("time").min().alias("first"),
            pl.col("time").max().alias("last"),
            pl.col("time").filter(kind == "ADMISSION").first().alias("admitted"),
            pl.col("time").filter(kind == "DISCHARGE").first().alias("discharged"),
        )
        .sort("subject_id", "visit_id")
    )
    assert (visits["admitted"] == visits["first"]).all()
    assert (visits["discharged"] == visits["last"]).all()
    later = visits.with_columns(pl.col("discharged").shift(1).over("subject_id").alias("before")).drop_nulls("before")
    assert len(later)
    assert (later["admitted"] >= later["before"]).all()


def test_the_same_seed_gives_the_same_events_and_another_seed_others(world: World, tmp_path: Path) -> None:
    def content(seed: int, name: str) -> str:
        events = write_events(world.records, root=world.root, out=tmp_path / name, seed=seed)
        return str(artefacts.read_manifest(events, kind="events")["content"])

    assert content(3, "same") == artefacts.read_manifest(world.events, kind="events")["content"]
    assert content(4, "other") != content(3, "again")


def test_no_patients_give_no_events(world: World, tmp_path: Path) -> None:
    nobody = world.records.take(np.zeros(0, dtype=np.int64))
    events = write_events(nobody, root=world.root, out=tmp_path, seed=1)
    assert len(pl.read_parquet(events / "data" / "0.parquet")) == 0
    assert write_tables(events, config=CONFIGS / world.source.name, out=tmp_path).is_dir()


def test_a_token_without_a_source_code_is_left_out_and_counted(world: World, tmp_path: Path) -> None:
    root = copied(world.root, tmp_path / "site")
    path = root / "cohort" / "decoder.parquet"
    decoder = pl.read_parquet(path)
    decoder.filter(~pl.col("token").str.starts_with("RX//")).write_parquet(path)
    names = world.cohort.vocabulary.names
    drugs = sum(name.startswith("RX//") for visit in tokens(world.records, names) for name in visit)
    events = write_events(world.records, root=root, out=tmp_path, seed=3)
    assert drugs
    assert artefacts.read_manifest(events, kind="events")["facts"]["undecodable"] == {"RX": drugs}
    assert not pl.read_parquet(events / "data" / "0.parquet")["code"].str.starts_with("DRUG//").any()


def test_a_site_without_a_cohort_gives_a_clear_error(world: World, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no cohort artefact"):
        write_events(world.records, root=tmp_path, out=tmp_path / "out", seed=1)
    assert not (tmp_path / "out").exists()


# --- tables ----------------------------------------------------------------------------------------------------------


def test_tables_have_the_source_s_header_in_its_order(world: World) -> None:
    rules = read_rules(CONFIGS / world.source.name)
    assert sorted(path.stem for path in world.tables.glob("*.csv")) == sorted(rule.file for rule in rules.files)
    for rule in rules.files:
        with (world.tables / f"{rule.file}.csv").open(encoding="utf-8", newline="") as handle:
            assert tuple(next(csv.reader(handle))) == rule.columns


def test_running_numbers_restart_where_the_rules_say(world: World) -> None:
    diagnoses = pl.read_csv(world.tables / "DIAGNOSES_ICD.csv", infer_schema=False)
    assert diagnoses["ROW_ID"].to_list() == [str(number) for number in range(1, len(diagnoses) + 1)]
    if "SEQ_NUM" in diagnoses.columns:
        sequences = diagnoses.group_by("HADM_ID", maintain_order=True).agg("SEQ_NUM")["SEQ_NUM"].to_list()
        assert all(sequence == [str(n) for n in range(1, len(sequence) + 1)] for sequence in sequences)
        assert max(map(len, sequences)) > 1


def test_synthetic_tables_say_so(world: World) -> None:
    assert "They stay at the site" in (world.tables / "README.txt").read_text(encoding="utf-8")
    assert artefacts.read_manifest(world.tables, kind="tables", verify=True)["facts"]["synthetic"] is True


def test_a_cell_that_a_spreadsheet_would_run_is_kept_as_text(world: World, tmp_path: Path) -> None:
    events = copied(world.events, tmp_path / "events")
    path = events / "data" / "0.parquet"
    drug = pl.col("code").str.starts_with("DRUG//")
    changed = pl.read_parquet(path).with_columns(
        pl.when(drug).then(pl.lit('DRUG//=HYPERLINK("x")\n|cmd')).otherwise("code").alias("code"),
        pl.when(pl.col("unit").is_not_null()).then(pl.lit("@SUM(A1)")).otherwise("unit").alias("unit"),
    )
    changed.write_parquet(path)
    tables = write_tables(events, config=CONFIGS / world.source.name, out=tmp_path)
    for file in sorted(tables.glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as handle:
            cells = [cell for row in csv.reader(handle) for cell in row]
        assert not [cell for cell in cells if cell[:1] in {"=", "@", "+", "\t"}]
    drugs = (tables / "PRESCRIPTIONS.csv").read_text(encoding="utf-8")
    assert "'=HYPERLINK(" in drugs
    assert (
        len(drugs.splitlines())
        == 1 + changed.filter(drug.is_not_null() & (pl.col("code").str.contains("HYPER"))).height
    )


def test_negative_numbers_stay_numbers(world: World, tmp_path: Path) -> None:
    events = copied(world.events, tmp_path / "events")
    path = events / "data" / "0.parquet"
    pl.read_parquet(path).with_columns(-pl.col("numeric_value")).write_parquet(path)
    labs = pl.read_csv(write_tables(events, config=CONFIGS / world.source.name, out=tmp_path) / "LABEVENTS.csv")
    assert labs["VALUENUM"].dtype == pl.Float64
    assert (labs["VALUENUM"] < 0).all()


def test_events_of_another_source_are_refused_before_anything_is_written(world: World, tmp_path: Path) -> None:
    other = "pic" if world.source.name == "mimic3" else "mimic3"
    with pytest.raises(ArtefactError, match="DIAG"):
        write_tables(world.events, config=CONFIGS / other, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def copied(folder: Path, to: Path) -> Path:
    """A copy whose files may be changed; manifests are checked by kind only where they are read."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = to / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to
