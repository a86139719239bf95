"""The pool of a simulated study, and a whole trial of it in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairsynth.experiments.evidence import pool as module
from fairsynth.experiments.evidence.cells import load_cell
from fairsynth.experiments.evidence.grid import run_grid
from fairsynth.experiments.evidence.pool import read_pool
from fairsynth.experiments.evidence.trial import Sizes
from fairsynth.visits.cohort import fits

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = 220


def write_study(path: Path, *, minimum_visits: int = 1, lines: str = "") -> Path:
    sites = "\n".join(
        f"  - site: {site}\n    config: {ROOT}/site_configs/{source}\n    simulate: {{source: {source}, "
        f"patients: {PATIENTS}, seed: {seed}, mix: study, detail: 0.02, minimum_visits: {minimum_visits}}}"
        for seed, (site, source) in enumerate((("zhejiang", "pic"), ("boston", "mimic3")), start=1)
    )
    path.write_text(
        f"""schema: fairsynth.study/1
name: toy
seed: 3
sites:
{sites}
privacy: {{agreement: toys}}
groups:
  names: [white, black, hispanic, asian, other, han, yi, buyei, miao, tujia, hui]
  reference: [white, han]
task: {{name: in_hospital_mortality}}
vocabulary: {{minimum_patients: 8}}
generator: {{embedding: 8, layers: 1, heads: 2}}
training: {{rounds: 1}}
audit: {{predictors: [logistic_regression], minimum_positives: 1}}
{lines}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("evidence")


@pytest.fixture(scope="module")
def study(folder) -> Path:
    return write_study(folder / "study.yaml")


@pytest.fixture(scope="module")
def pooled(folder, study):
    return read_pool(study, work=folder / "pool")


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_all_patients_of_each_site_are_in_the_pool_in_the_order_of_sites(pooled):
    assert list(pooled.sites) == ["boston", "zhejiang"]
    assert pooled.plan.name == "toy"
    for records in pooled.sites.values():
        assert PATIENTS / 2 < len(records) <= PATIENTS
        assert 0 < records.label.sum() < len(records) / 2
        assert fits(records, vocabulary=pooled.vocabulary)


def test_a_second_look_reads_what_is_there_and_gives_the_same(pooled, folder, study, monkeypatch):
    def extract(*_, **__):
        raise AssertionError("extracted again")

    monkeypatch.setattr(module, "extract", extract)
    before = stamps(folder / "pool")
    again = read_pool(study, work=folder / "pool")
    assert stamps(folder / "pool") == before
    assert again.vocabulary == pooled.vocabulary
    for site, records in pooled.sites.items():
        assert np.array_equal(again.sites[site].codes, records.codes)
    with pytest.raises(AssertionError, match="extracted again"):  # an error in between leaves no stamp of a whole pool
        read_pool(write_study(folder / "other.yaml", lines="split: {}"), work=folder / "new")
    assert not (folder / "new" / "pool.sha256").exists()


@pytest.mark.parametrize("changed", [{"minimum_visits": 2}, {"lines": "objective: {lambda: 0.5}"}])
def test_another_study_is_another_pool(pooled, folder, monkeypatch, tmp_path, changed):
    made = []
    monkeypatch.setattr(module, "_make", lambda sites, *_, **__: made.append(len(sites)))
    read_pool(write_study(tmp_path / "study.yaml"), work=folder / "pool")
    assert made == []
    stamp = folder / "pool" / "pool.sha256"
    before = stamp.read_text(encoding="utf-8")
    read_pool(write_study(tmp_path / "study.yaml", **changed), work=folder / "pool")
    assert made == [2]
    assert stamp.read_text(encoding="utf-8") != before
    stamp.write_text(before, encoding="utf-8")


def test_tables_that_were_simulated_for_it_are_not_kept(pooled, folder):
    assert not list((folder / "pool").rglob("*.csv"))
    assert not [path for path in (folder / "pool").rglob("*") if path.name in {"raw", "raw.sha256", "events", "visits"}]


def test_a_grid_runs_a_trial_of_it_in_another_process_and_only_once(pooled, folder, study):
    arguments = {
        **{"setting": "toy", "study": study, "seeds": 1, "out": folder / "results", "work": folder / "pool"},
        **{"jobs": 1, "rows": (Sizes(real=120, synthetic=40),)},
    }
    (found,) = run_grid("table1", **arguments)
    cell = load_cell(found)
    assert (cell.axes.real, cell.axes.synthetic, cell.axes.seed) == (120, 40, 1)
    held_out = [round(len(records) / 2) for records in pooled.sites.values()]
    real_only = cell.held_out[cell.axes.approaches.index("real_only"), 0]
    assert real_only.sum(axis=(1, 2, 3)).tolist() == held_out
    before = stamps(folder / "results")
    assert run_grid("table1", **arguments) == [found]
    assert stamps(folder / "results") == before
