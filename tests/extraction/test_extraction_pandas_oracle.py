"""An oracle that shares no line of table work with us: the pandas version of benchmarks/ gives the same tables."""

from pathlib import Path

import polars as pl
import pytest

from benchmarks import extract_pandas
from fairsynth.config import SimulationConfig, read_study
from fairsynth.extraction import extract
from fairsynth.simulate import simulate
from fairsynth.visits.cohort import prepare

ROOT = Path(__file__).resolve().parents[2]


def every(number):
    return pl.int_range(pl.len()) % number == 0


def roughened(raw: Path) -> None:
    """Tables as hospitals have them: rows without a visit, of nobody, of another's visit; blanks, gaps, bare dates."""
    labs = pl.read_csv(raw / "LABEVENTS.csv", infer_schema=False)
    named = labs.drop_nulls("HADM_ID")
    first, other = named.head(1), named["HADM_ID"][-1]
    strangers = [first.with_columns(SUBJECT_ID=pl.lit("1")), first.with_columns(HADM_ID=pl.lit(other))]
    labs = labs.with_columns(
        HADM_ID=pl.when(~every(7)).then("HADM_ID"),
        VALUENUM=pl.when(~every(11)).then("VALUENUM"),
        ITEMID=pl.when(~every(13)).then("ITEMID"),
        VALUEUOM=pl.when(every(5)).then(pl.col("VALUEUOM") + " ").otherwise("VALUEUOM"),
        CHARTTIME=pl.when(every(17)).then(pl.col("CHARTTIME").str.head(10)).otherwise("CHARTTIME"),
    )
    pl.concat([labs, *strangers]).write_csv(raw / "LABEVENTS.csv")
    drugs = pl.read_csv(raw / "PRESCRIPTIONS.csv", infer_schema=False)
    drugs = drugs.with_columns(
        STARTDATE=pl.when(~every(9)).then(pl.col("STARTDATE").str.head(10)),
        DRUG=pl.when(every(4)).then(" " + pl.col("DRUG")).otherwise("DRUG"),
    )
    drugs.write_csv(raw / "PRESCRIPTIONS.csv")
    stays = pl.read_csv(raw / "ADMISSIONS.csv", infer_schema=False)
    stays.with_columns(DEATHTIME=pl.when(~every(2)).then("DEATHTIME")).write_csv(raw / "ADMISSIONS.csv")


@pytest.fixture(scope="module", params=["as simulated", "rough"])
def both(request, tmp_path_factory):
    """Our site folder, and that of the pandas version."""
    root = tmp_path_factory.mktemp("oracle")
    simulate(SimulationConfig(source="mimic3", patients=150, seed=8, mix="study", detail=0.1), root / "raw")
    if request.param == "rough":
        roughened(root / "raw")
    config, plan = ROOT / "site_configs" / "mimic3", read_study(ROOT / "studies" / "demo.yaml").plan()
    extract(root / "raw", config=config, root=root)
    prepare(root, config=config, plan=plan)
    extract_pandas.run(root / "raw", config=config, plan=plan, out=root / "pandas")
    return root, root / "pandas"


def same(ours: pl.DataFrame, theirs: pl.DataFrame) -> None:
    """Equal columns, rows and order; the width of a type may differ."""
    assert ours.columns == theirs.columns
    assert ours.height > 100
    assert ours.equals(theirs.cast(dict(ours.schema)))


def test_events_are_those_of_the_pandas_version(both):
    ours, theirs = both
    events = pl.read_parquet(sorted((ours / "events" / "data").glob("*.parquet")))
    same(events, pl.read_parquet(theirs / "events.parquet"))


@pytest.mark.parametrize("table", ["patients", "tokens"])
def test_the_cohort_is_that_of_the_pandas_version(both, table):
    ours, theirs = both
    same(pl.read_parquet(ours / "visits" / f"{table}.parquet"), pl.read_parquet(theirs / f"{table}.parquet"))


def test_the_pandas_version_refuses_cells_that_do_not_parse(tmp_path):
    simulate(SimulationConfig(source="mimic3", patients=20, detail=0.02), tmp_path / "raw")
    labs = pl.read_csv(tmp_path / "raw" / "LABEVENTS.csv", infer_schema=False)
    labs.with_columns(CHARTTIME=pl.lit("yesterday")).write_csv(tmp_path / "raw" / "LABEVENTS.csv")
    plan = read_study(ROOT / "studies" / "demo.yaml").plan()
    with pytest.raises(ValueError, match=rf"LABEVENTS.CHARTTIME: {labs.height} cells do not parse"):
        extract_pandas.run(tmp_path / "raw", config=ROOT / "site_configs" / "mimic3", plan=plan, out=tmp_path)
