"""Patients that come in parts are written as if they came at once, a shard in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from decode_stories import CONFIGS, MIMIC, PIC, Source, make_plan, prepared, write_raw

from fairsynth import artefacts
from fairsynth.extraction import Rules
from fairsynth.synthesis import decode, tables
from fairsynth.synthesis.decode import write_events, write_tables
from fairsynth.visits.records import Records, regrouped


@pytest.fixture(scope="module", params=[MIMIC, PIC], ids=lambda source: source.name)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Path, Records]:
    source, folder = request.param, tmp_path_factory.mktemp("site")
    plan = make_plan(source, task="mortality_next_visit")
    cohort = prepared(folder / "site", data=write_raw(folder / "raw", source), source=source, plan=plan)
    records = Records.concatenate([cohort.train, cohort.validation, cohort.held_out])
    return source, folder / "site", records.take(np.tile(np.arange(len(records)), 3))


def cut(records: Records, *sizes: int) -> Iterator[Records]:
    start = 0
    for size in (*sizes, len(records) - sum(sizes)):
        yield records.take(np.arange(start, start + size))
        start += size


def written(site: tuple[Source, Path, Records], out: Path, parts: object) -> tuple[Path, Path]:
    source, root, _ = site
    events = write_events(parts, root=root, out=out, seed=3)
    return events, write_tables(events, config=CONFIGS / source.name, out=out)


def content(folder: Path) -> str:
    return str(artefacts.read_manifest(folder, kind=folder.name, verify=True)["content"])


def test_the_same_files_are_written_whatever_the_parts(site: tuple[Source, Path, Records], tmp_path: Path) -> None:
    records = site[2]
    whole = written(site, tmp_path / "whole", records)
    parts = written(site, tmp_path / "parts", cut(records, 1, 7, 0, 30))
    assert [content(folder) for folder in parts] == [content(folder) for folder in whole]


def test_the_same_patients_are_written_whatever_a_shard_holds(
    site: tuple[Source, Path, Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, one = written(site, tmp_path / "whole", site[2])
    monkeypatch.setattr(decode, "SHARD_PATIENTS", 6)  # of 48
    shards, again = written(site, tmp_path / "shards", site[2])
    assert sorted(path.name for path in (shards / "data").iterdir()) == [f"{n}.parquet" for n in range(8)]
    assert pl.read_parquet(shards / "data" / "*.parquet").equals(pl.read_parquet(whole / "data" / "*.parquet"))
    assert content(again) == content(one)
    facts = [artefacts.read_manifest(folder, kind="events")["facts"] for folder in (whole, shards)]
    assert facts[0] == facts[1]
    facts = [artefacts.read_manifest(folder, kind="tables")["facts"] for folder in (one, again)]
    assert facts[0] == facts[1]


def test_one_shard_is_in_memory_at_a_time(
    site: tuple[Source, Path, Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "SHARD_PATIENTS", 4)
    drawn, ahead = 0, []

    def parts() -> Iterator[Records]:
        nonlocal drawn
        for part in cut(site[2], *[4] * 10):
            files = len(list(tmp_path.rglob("data/*.parquet")))
            ahead.append(drawn - 4 * files)
            drawn += len(part)
            yield part

    write_events(parts(), root=site[1], out=tmp_path, seed=3)
    assert len(ahead) == 11
    assert max(ahead) == 0  # every patient drawn so far is on disk before the next part is asked for


def test_one_shard_becomes_rows_at_a_time(
    site: tuple[Source, Path, Records], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "SHARD_PATIENTS", 4)
    events = write_events(site[2], root=site[1], out=tmp_path, seed=3)
    held, made = [], tables.Source.of

    def of(frame: pl.DataFrame, rules: Rules) -> tables.Source:
        held.append(frame["subject_id"].n_unique())
        return made(frame, rules)

    monkeypatch.setattr(tables.Source, "of", of)
    write_tables(events, config=CONFIGS / site[0].name, out=tmp_path)
    assert held == [4] * 12


@pytest.mark.parametrize("sizes", [(), (1,), (5, 0, 5), (20, 3), (48,)])
def test_patients_are_regrouped_in_their_order(site: tuple[Source, Path, Records], sizes: tuple[int, ...]) -> None:
    records = site[2]
    found = list(regrouped(cut(records, *sizes), patients=10))
    assert [len(part) for part in found] == [*[10] * 4, 8]
    again = Records.concatenate(found)
    for name in ("codes", "visit_offsets", "patient_offsets", "context", "context_offsets", "group", "label"):
        assert np.array_equal(getattr(again, name), getattr(records, name))


def test_nobody_is_one_empty_part() -> None:
    assert [len(part) for part in regrouped([], patients=10)] == [0]
