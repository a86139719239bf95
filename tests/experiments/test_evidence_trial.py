from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import evidence_toys as toy
import numpy as np
import pytest

from fairsynth import artefacts
from fairsynth.audit.evaluate import blind_scores
from fairsynth.errors import ArtefactError
from fairsynth.experiments.evidence import grid
from fairsynth.experiments.evidence.cells import Axes, Cell, load_cell
from fairsynth.experiments.evidence.grid import Work, run_grid
from fairsynth.experiments.evidence.trial import Sizes, Trial

ALWAYS = (
    *("real_only", "plain_synthetic", "double_prioritised", "cell_balanced", "same_plan_copies", "same_plan_prefix"),
    *("oracle", "fresh_same_size", "reweighing", "fairsynth"),
)
WIDE = ("fairsynth_local", "fairsynth_pooled", "permuted_groups", "threshold_optimiser", "exponentiated_gradient")


@pytest.fixture(scope="module")
def trial() -> Trial:
    bench = toy.bench(real=60, seed=0, config=toy.study(rounds=1))
    return Trial(bench=bench, setting="toy", sizes=Sizes(real=60, synthetic=24), number=3)


@pytest.fixture(scope="module")
def cell(trial) -> Cell:
    return trial.run()


def same(one: Cell, other: Cell) -> bool:
    return one.axes == other.axes and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("held_out", "validation", "added", "train")
    )


def test_every_approach_is_counted_on_all_real_patients_of_each_site(trial, cell):
    assert set(cell.axes.approaches) == {*ALWAYS, *WIDE}
    for part in ("held_out", "validation"):
        found = getattr(cell, part).sum(axis=-1)  # (A, P, S, G, 2)
        for place, site in enumerate(cell.axes.sites):
            people = getattr(trial.bench.draw.cohorts[site], part)
            expected = np.zeros((2, 2), dtype=int)
            np.add.at(expected, (people.group, people.label), 1)
            assert (found[:, :, place] == expected).all(), (part, site)


def test_what_was_added_is_what_the_approach_may_add(trial, cell):
    added = dict(zip(cell.axes.approaches, cell.added[:, 0], strict=True))  # (S, G, 2) each
    for approach in ("real_only", "reweighing", "threshold_optimiser", "exponentiated_gradient"):
        assert not added[approach].any()
    budgets = list(trial.bench.budgets(24).values())
    for approach in ("plain_synthetic", "fairsynth", "fairsynth_pooled", "same_plan_prefix", "permuted_groups"):
        assert added[approach].sum(axis=(1, 2)).tolist() == budgets
    for approach in ("fairsynth", "fairsynth_local", "fairsynth_pooled"):
        assert np.array_equal(added[approach], added["same_plan_prefix"])


def test_sites_that_train_one_predictor_together_are_compared_and_so_is_the_teacher_with_thresholds_by_group(trial):
    mended = dict(trial._mended("transformer"))
    together = ["fedavg", "fedavg_site_thresholds", "fairfed", "teacher", "teacher_optimised"]
    assert list(mended) == ["threshold_optimiser", *together]
    vocabulary = trial.bench.draw.vocabulary
    for site, cohort in trial.bench.draw.cohorts.items():
        teacher, decided = (
            blind_scores(mended[name][site], cohort.validation, vocabulary=vocabulary)
            for name in ("teacher", "teacher_optimised")
        )
        assert mended["fedavg"][site] is mended["fedavg"][trial.bench.draw.smallest]
        assert not np.array_equal(teacher, decided)
        for group in range(len(vocabulary.groups)):  # a threshold: who scores higher is not decided against
            members = np.flatnonzero(cohort.validation.group == group)
            assert (np.diff(decided[members[teacher[members].argsort()]]) >= 0).all()


def test_the_axes_say_what_the_trial_was(trial, cell):
    axes = cell.axes
    assert (axes.setting, axes.real, axes.synthetic, axes.seed) == ("toy", 60, 24, 3)
    assert (axes.sites, axes.groups, axes.reference) == (("a", "b", "c"), ("x", "y"), ("x",))
    assert np.array_equal(cell.train, [trial.bench.members(site) for site in axes.sites])


def test_a_cell_reads_back_as_it_was_written(cell, tmp_path):
    cell.save(tmp_path)
    back = load_cell(tmp_path)
    assert same(back, cell)
    assert back.facts == json.loads(json.dumps(cell.facts))
    assert {"oracle_elsewhere", "selected/logistic_regression", "seconds"} <= set(back.facts)


# --- cells and the grid, with counts made up --------------------------------------------------------------------------


def made_up(*, synthetic: int = 20, seed: int = 1) -> Cell:
    axes = Axes(
        **{"setting": "toy", "real": 60, "synthetic": synthetic, "seed": seed, "approaches": ("one", "two")},
        **{"predictors": ("logistic_regression",), "sites": ("a",), "groups": ("x", "y"), "reference": ("x",)},
    )
    scores = np.random.default_rng(seed).integers(0, 9, size=(2, 2, 1, 1, 2, 2, 200))
    return Cell(
        axes=axes,
        held_out=scores[0],
        validation=scores[1],
        added=scores[0].sum(axis=-1),
        train=scores[0, 0, 0].sum(axis=-1),
        facts={},
    )


def test_a_damaged_cell_is_refused(tmp_path):
    made_up().save(tmp_path)
    assert same(load_cell(tmp_path), made_up())
    path = tmp_path / "cell" / "counts.safetensors"
    spoilt = bytearray(path.read_bytes())
    spoilt[-9] ^= 1
    path.write_bytes(bytes(spoilt))
    with pytest.raises(ArtefactError):
        load_cell(tmp_path)
    with pytest.raises(ArtefactError):
        load_cell(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["held_out", "validation", "added", "train"])
def test_counts_that_do_not_fit_their_axes_are_refused(name, tmp_path):
    whole = made_up()
    replace(whole, **{name: getattr(whole, name)[:-1]}).save(tmp_path)
    with pytest.raises(ArtefactError, match="do not fit their axes"):
        load_cell(tmp_path)


class Scripted:
    """In the place of a trial: says that it ran, gives a made-up cell, or dies."""

    ran: list[tuple[int, bool]]
    dies_at: int | None

    def __init__(self, *, bench, setting, sizes, number, wide):
        self.cell = made_up(synthetic=sizes.synthetic, seed=number)
        self.key = (sizes.synthetic, wide)

    def run(self) -> Cell:
        type(self).ran.append(self.key)
        if self.key[0] == type(self).dies_at:
            raise KeyboardInterrupt
        return self.cell


@pytest.fixture
def scripted(monkeypatch):
    Scripted.ran, Scripted.dies_at = [], None
    monkeypatch.setattr(grid, "Trial", Scripted)
    monkeypatch.setattr(grid, "read_pool", lambda *_, **__: toy.pool())
    monkeypatch.setattr(grid, "read_study", lambda _: toy.study())
    monkeypatch.setattr(grid, "sources", lambda *_, data: sorted(map(str, data.values())))
    return Scripted


def work(out: Path, *, seed: int = 1, synthetic=(20, 2500)) -> Work:
    return Work(
        setting="toy", study=out, pool=out, data={}, seed=seed, real=60, synthetic=synthetic, out=out / "results"
    )


def test_a_finished_trial_is_not_run_again(scripted, tmp_path):
    first = work(tmp_path).do()
    assert scripted.ran == [(20, False), (2500, True)]
    stamps = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert work(tmp_path).do() == []
    assert len(scripted.ran) == 2
    assert stamps == [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert same(load_cell(first[0]), made_up(synthetic=20))
    assert first[1] == tmp_path / "results/cells/toy/r60-s2500/seed-1"
    work(tmp_path, synthetic=(20, 40)).do()
    assert scripted.ran[2:] == [(40, False)]


def test_a_trial_that_was_killed_leaves_nothing_and_is_the_only_one_that_is_run_again(scripted, tmp_path):
    scripted.dies_at = 2500
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path).do()
    assert work(tmp_path).missing == (2500,)
    assert not work(tmp_path).folder(2500).exists()
    scripted.dies_at, scripted.ran = None, []
    work(tmp_path).do()
    assert scripted.ran == [(2500, True)]


def test_a_cell_that_was_killed_while_it_was_written_is_not_there(monkeypatch, tmp_path):
    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(artefacts, "write_json", dies)
    with pytest.raises(KeyboardInterrupt):
        made_up().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_grid_does_every_row_and_seed_once_and_says_how_far_it_is(scripted, monkeypatch, tmp_path):
    class Here:
        """In the place of the pool of processes: this one."""

        def __init__(self, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def submit(self, task):
            done = grid.Future()
            done.set_result(task())
            return done

    monkeypatch.setattr(grid, "ProcessPoolExecutor", Here)
    rows = (Sizes(real=60, synthetic=20), Sizes(real=80, synthetic=20), Sizes(real=60, synthetic=30))
    events = []
    arguments = {"setting": "toy", "study": tmp_path, "seeds": 2, "out": tmp_path, "work": tmp_path, "jobs": 1}
    found = run_grid("table1", rows=rows, on_event=events.append, **arguments)
    names = [path.relative_to(tmp_path / "cells/toy").as_posix() for path in found]
    assert sorted(names) == sorted(f"r{row.real}-s{row.synthetic}/seed-{seed}" for row in rows for seed in (1, 2))
    assert all((path / "cell").is_dir() for path in found)
    assert (events[0], events[-1]["done"]) == ({"event": "trials", "done": 0, "of": 6}, 6)
    assert run_grid("table1", rows=rows, on_event=events.append, **arguments) == found
    assert len(scripted.ran) == 6
    assert events[-1] == {"event": "trials", "done": 6, "of": 6}


def test_trials_of_another_study_are_not_taken_for_this_ones(scripted, monkeypatch, tmp_path):
    cells = tmp_path / "cells" / "toy"
    grid._claim(cells, tmp_path, data={})
    grid._claim(cells, tmp_path, data={})  # the same study again
    with pytest.raises(grid.ConfigError, match="or of other tables"):
        grid._claim(cells, tmp_path, data={"one": tmp_path})
    monkeypatch.setattr(grid, "read_study", lambda _: toy.study(weight=0.7))
    with pytest.raises(grid.ConfigError, match="trials of another study"):
        grid._claim(cells, tmp_path, data={})
    grid._claim(tmp_path / "cells" / "other", tmp_path, data={})


def test_the_first_six_rows_are_those_of_the_papers_table_1():
    sizes = {(row.real, row.synthetic) for row in grid.PAPER}
    assert sizes == {(1000, 2500), (2500, 2500), (5000, 2500), (2500, 500), (2500, 1000), (2500, 2000)}
    assert grid.ROWS["table1"][: len(grid.PAPER)] == grid.PAPER


def test_an_unknown_table_is_refused(tmp_path):
    with pytest.raises(grid.ConfigError, match="unknown table"):
        run_grid("table9", setting="toy", study=tmp_path, seeds=1, out=tmp_path, work=tmp_path, jobs=1)
