"""The parts of the full-size benchmark, at a tiny size."""

import polars as pl
import pytest

from benchmarks import extract
from fairsynth.config import SimulationConfig
from fairsynth.simulate import simulate

TINY = extract.Sizes(mimic3=80, pic=60, pandas=80)
KEYS = ["seconds", "peak_rss_gb", "speedup_vs_pandas", "rss_growth_10x", "pic_seconds", "pic_peak_rss_gb", "details"]


@pytest.fixture
def raw(tmp_path):
    simulate(SimulationConfig(source="mimic3", patients=30, detail=0.05), tmp_path / "raw")
    return tmp_path / "raw"


def read(path):
    return pl.read_csv(path, infer_schema=False)


def test_all_figures_come_of_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "measured", lambda work, *arguments: extract._measure(work, arguments))
    monkeypatch.setattr(extract, "REPEATS", 1)
    monkeypatch.setattr(extract, "ten_copies", extract.every_tenth)  # its own test is below
    found = extract.figures(tmp_path, TINY, ten=True)
    assert list(found) == KEYS
    assert all(found[key] > 0 for key in KEYS[:-1])
    rows = {
        name: one["rows"]["LABEVENTS"]
        for name, one in found["details"].items()
        if isinstance(one, dict) and "rows" in one
    }
    whole = rows["mimic3"]
    assert rows["mimic3, every tenth laboratory row"] == -(-whole // 10)
    assert "mimic3, ten times the laboratory rows" in rows
    assert {path.name for path in tmp_path.iterdir()} == {"mimic3-80", "mimic3-80-tenth", "mimic3-80-ten", "pic-60"}
    assert "speedup_vs_pandas" in extract.shown(found)


def test_a_measurement_runs_in_a_process_of_its_own_whose_memory_alone_counts(tmp_path):
    held = b"1" * 600_000_000
    assert extract.peak_rss() > len(held)
    one = extract.measured(extract.make_tables, "pic", 20, tmp_path / "raw")
    assert (tmp_path / "raw" / "PATIENTS.csv").is_file()
    assert one.seconds == one.steps["simulate"] > 0
    assert 0.05 < one.peak_rss_gb < 0.5


def test_thinned_tables_differ_in_laboratory_rows_alone(raw):
    thin = extract.with_labs(raw, "tenth", extract.every_tenth)
    assert read(thin / extract.LABS).equals(read(raw / extract.LABS).gather_every(10))
    others = [path for path in raw.iterdir() if path.name != extract.LABS]
    assert all((thin / path.name).read_bytes() == path.read_bytes() for path in others)
    assert len(others) == len(list(thin.iterdir())) - 1


def test_ten_copies_have_row_numbers_of_their_own_and_later_times(raw):
    labs = read(raw / extract.LABS)
    many = read(extract.with_labs(raw, "ten", extract.ten_copies) / extract.LABS)
    assert many["ROW_ID"].cast(int).to_list() == list(range(1, 10 * labs.height + 1))
    last = many.tail(labs.height)
    assert last.drop("ROW_ID", "CHARTTIME").equals(labs.drop("ROW_ID", "CHARTTIME"))
    form = "%Y-%m-%d %H:%M:%S"
    assert set(last["CHARTTIME"].str.to_datetime(form) - labs["CHARTTIME"].str.to_datetime(form)) == {
        pl.select(pl.duration(minutes=9)).item()
    }


def test_output_that_differs_is_no_comparison(tmp_path):
    for folder in ("events/data", "visits", "pandas"):
        (tmp_path / folder).mkdir(parents=True)
    table = pl.DataFrame({"subject_id": [1, 2]})
    for name in ("events/data/0", "visits/patients", "visits/tokens", "pandas/events", "pandas/patients"):
        table.write_parquet(tmp_path / f"{name}.parquet")
    table.reverse().write_parquet(tmp_path / "pandas" / "tokens.parquet")
    with pytest.raises(SystemExit, match="tokens of the pandas version differ"):
        extract.compare(tmp_path, tmp_path / "pandas")
