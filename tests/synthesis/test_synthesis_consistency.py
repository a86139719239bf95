"""Whatever a generator draws, the patients that come of it are possible: dates in order, ages right, values in range.

An untrained generator draws tokens at random, visits years apart for infants included; it is asked for every age band
in turn.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import meds
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from decode_stories import CONFIGS, MIMIC, PIC, Source, make_plan, prepared, write_raw

from fairsynth import artefacts
from fairsynth.config import GeneratorConfig
from fairsynth.extraction import extract
from fairsynth.generator.model import initial_weights
from fairsynth.generator.sample import Conditions, sample
from fairsynth.synthesis.decode import write_events
from fairsynth.visits.bins import AGE_BINS
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.labs import find_lab, plain_unit
from fairsynth.visits.records import Records

MADE_UP = Path(__file__).resolve().parents[1] / "extraction" / "data"
PATIENTS = 400
OLDEST_YEARS = 120


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A site, patients drawn from an untrained generator, and their events."""

    root: Path
    cohort: Cohort
    records: Records
    folder: Path
    events: pl.DataFrame


@pytest.fixture(scope="module", params=[MIMIC, PIC], ids=lambda source: source.name)
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    source: Source = request.param
    root = tmp_path_factory.mktemp("site")
    cohort = prepared(root, data=write_raw(root / "raw", source), source=source, plan=make_plan(source))
    config = GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=6)
    rng = np.random.default_rng(1)
    conditions = Conditions(
        group=rng.integers(len(source.groups), size=PATIENTS),
        label=rng.integers(2, size=PATIENTS),
        age=np.arange(PATIENTS) % len(AGE_BINS),
    )
    weights = initial_weights(cohort.vocabulary, config, seed=1)
    records = sample(weights, vocabulary=cohort.vocabulary, config=config, conditions=conditions, seed=2)
    folder = write_events(records, root=root, out=root / "synthetic", seed=3)
    return Drawn(
        root=root, cohort=cohort, records=records, folder=folder, events=pl.read_parquet(folder / "data" / "*.parquet")
    )


def validated(folder: Path) -> None:
    """The data set at `folder` by the schemas of the `meds` package. Raises what they raise."""
    for path in sorted((folder / "data").glob("*.parquet")):
        meds.DataSchema.validate(pq.read_table(path))
    codes = pq.read_table(folder / "metadata" / "codes.parquet")
    meds.CodeMetadataSchema.validate(codes)
    meds.DatasetMetadataSchema.validate(json.loads((folder / "metadata" / "dataset.json").read_text(encoding="utf-8")))
    used = pl.scan_parquet(folder / "data" / "*.parquet").select("code").unique().collect()["code"]
    assert set(codes["code"].to_pylist()) == set(used)


def in_meds_order(folder: Path) -> bool:
    """Whether a patient's events stand together, in one file, in order of time, undated ones first."""
    shards = [pl.read_parquet(path) for path in sorted((folder / "data").glob("*.parquet"))]
    seen = [set(shard["subject_id"]) for shard in shards]
    events = pl.concat(shards)
    return sum(map(len, seen)) == events["subject_id"].n_unique() and events.equals(
        events.sort("subject_id", "time", nulls_last=False, maintain_order=True)
    )


# --- MEDS ------------------------------------------------------------------------------------------------------------


def test_synthetic_patients_are_valid_meds(drawn: Drawn) -> None:
    validated(drawn.folder)
    assert in_meds_order(drawn.folder)


@pytest.mark.parametrize("source", ["mimic4", "eicu", "omop", "diabetes130"])
def test_extracted_patients_are_valid_meds(source: str, tmp_path: Path) -> None:
    config = CONFIGS / (source if source != "diabetes130" else "diabetes130/unrecorded")
    events = extract(MADE_UP / source, config=config, root=tmp_path)
    validated(events)
    assert in_meds_order(events)


def test_a_data_set_that_is_not_meds_is_told_from_one_that_is(drawn: Drawn) -> None:
    table = pq.read_table(drawn.folder / "data" / "0.parquet")
    seconds = table.set_column(1, "time", table["time"].cast(pa.timestamp("s")))
    with pytest.raises(Exception, match="time"):
        meds.DataSchema.validate(seconds)


# --- dates -----------------------------------------------------------------------------------------------------------


def visits_of(events: pl.DataFrame) -> pl.DataFrame:
    """Every visit with its admission, discharge, first and last event."""
    kind = pl.col("code").str.split("//").list.first()
    return (
        events.drop_nulls("visit_id")
        .group_by("subject_id", "visit_id")
        .agg(
            pl.col("time").filter(kind == "ADMISSION").first().alias("admitted"),
            pl.col("time").filter(kind == "DISCHARGE").first().alias("discharged"),
            pl.col("time").min().alias("first"),
            pl.col("time").max().alias("last"),
            (pl.col("code") == "DEATH//HOSPITAL").any().alias("died"),
        )
        .sort("subject_id", "admitted")
    )


def test_the_generator_did_draw_contradictions(drawn: Drawn) -> None:
    manifest = artefacts.read_manifest(drawn.folder, kind="events")
    assert manifest["facts"]["contradictory"] > 10  # or the tests below would say little
    assert drawn.records.visits > len(drawn.records)


def test_every_admission_comes_before_its_discharge_and_everything_in_between(drawn: Drawn) -> None:
    visits = visits_of(drawn.events)
    assert (visits["admitted"] < visits["discharged"]).all()
    assert (visits["admitted"] == visits["first"]).all()
    assert (visits["discharged"] == visits["last"]).all()


def test_visits_do_not_overlap(drawn: Drawn) -> None:
    before = visits_of(drawn.events).with_columns(pl.col("discharged").shift(1).over("subject_id").alias("before"))
    assert (before.drop_nulls("before")["admitted"] >= before.drop_nulls("before")["before"]).all()


def test_death_comes_last_and_only_in_the_last_visit(drawn: Drawn) -> None:
    deaths = drawn.events.filter(code="MEDS_DEATH").select("subject_id", death="time")
    assert len(deaths) == drawn.records.label.sum()
    assert deaths["subject_id"].is_unique().all()
    later = drawn.events.join(deaths, on="subject_id").filter(pl.col("time") > pl.col("death"))
    assert later.is_empty()
    last = visits_of(drawn.events).group_by("subject_id", maintain_order=True).last()
    died = last.filter("died").join(deaths, on="subject_id")
    assert len(died) == len(deaths)
    assert (died["death"] == died["discharged"]).all()
    assert visits_of(drawn.events)["died"].sum() == len(deaths)


def test_birth_comes_before_everything_and_ages_are_those_of_the_record(drawn: Drawn) -> None:
    born = drawn.events.filter(code="MEDS_BIRTH").select("subject_id", birth="time")
    assert len(born) == len(drawn.records)
    events = drawn.events.drop_nulls("time").join(born, on="subject_id")
    assert (events["time"] >= events["birth"]).all()
    last = visits_of(drawn.events).group_by("subject_id", maintain_order=True).last().join(born, on="subject_id")
    days = ((last["admitted"] - last["birth"]).dt.total_seconds() / 86_400).to_list()
    assert max(days) <= OLDEST_YEARS * 365.25
    bins = list(AGE_BINS.values())
    for patient, age in enumerate(days):  # condition `age` was the patient's number, round and round
        low, high = bins[patient % len(bins)]
        assert low <= age < high


# --- values ----------------------------------------------------------------------------------------------------------


def test_laboratory_values_lie_inside_the_bin_of_their_token_in_the_site_s_own_unit(drawn: Drawn) -> None:
    labs = drawn.events.filter(pl.col("code").str.starts_with("LAB//"))
    real = pl.read_parquet(drawn.root / "events" / "data" / "*.parquet").select("code", "unit").unique()
    assert len(labs.join(real, on=["code", "unit"], how="semi")) == len(labs) > 0  # tests and units that the site has
    codes = pl.read_parquet(drawn.root / "events" / "metadata" / "codes.parquet")
    loinc = {
        code: parents[0].removeprefix("LOINC/")
        for code, parents in codes.select("code", "parent_codes").rows()
        if parents
    }
    tokens = tokens_of(drawn)
    for visit, code, value, unit in labs.select("visit_id", "code", "numeric_value", "unit").iter_rows():
        lab = find_lab(loinc[code], unit)
        assert lab is not None
        conventional = value * lab.units[plain_unit(unit)]
        ranges = lab.ranges()
        bins = [name for name, (low, high) in ranges.items() if low <= conventional <= high]
        assert any(f"LAB//{lab.loinc}//{name}" in tokens[visit] for name in bins)


def test_every_laboratory_token_has_its_value(drawn: Drawn) -> None:
    labs = drawn.events.filter(pl.col("code").str.starts_with("LAB//"))
    tokens = [token for visit in tokens_of(drawn).values() for token in visit if token.startswith("LAB//")]
    assert len(labs) == len(tokens)


def tokens_of(drawn: Drawn) -> dict[int, set[str]]:
    """The tokens of every visit of the records, by the number that the visit was given."""
    names, ends, first = drawn.cohort.vocabulary.names, drawn.records.visit_offsets, drawn.events["visit_id"].min()
    return {
        first + visit: {names[code] for code in drawn.records.codes[start:end]}
        for visit, (start, end) in enumerate(itertools.pairwise(ends))
    }
