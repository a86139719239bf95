"""The one door: a trained site, its synthetic patients, `fairsynth release check` and `export`, killed at either."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from fairsynth import artefacts
from fairsynth.cli import main
from fairsynth.errors import ArtefactError, ReleaseBlocked
from fairsynth.experiments.generate import generate, source_of_model
from fairsynth.experiments.train import train
from fairsynth.halo import conditions
from fairsynth.synthesis.release import runs
from fairsynth.synthesis.release.check import check_release
from fairsynth.synthesis.release.export import Override, export
from fairsynth.synthesis.release.format import file_problems, rare_source_codes
from fairsynth.synthesis.release.gates import Outcome

ROOT = Path(__file__).resolve().parents[2]
STUDY = f"""schema: fairsynth.study/1
name: gated
seed: 3
sites:
  - site: zhejiang
    config: {ROOT}/site_configs/pic
    simulate: {{source: pic, patients: 3000, seed: 2, mix: study, detail: 0.02}}
groups: {{names: [han, yi, buyei, miao, tujia, hui, other], reference: [han]}}
split: {{train: 0.45, validation: 0.1, held_out: 0.45}}
generator: {{embedding: 16, layers: 1, heads: 2}}
fit: {{epochs: 2, batch_size: 64, warm_up_steps: 5, threads: 1, device: cpu}}
"""
OFFICER = Override(officer="A. Officer", reason="agreed with the board on 1 May")


def fairsynth(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `site/` (a model trained alone) and `new/` (300 patients of it)."""
    root = tmp_path_factory.mktemp("gated")
    study = root / "study.yaml"
    study.write_text(STUDY, encoding="utf-8")
    model, _ = train(study, out=root / "site")
    drawn(model, root / "new", seed=1)
    return root


def drawn(model, out: Path, *, seed: int) -> None:
    source = source_of_model(model)
    generate(source, conditions=conditions(source.vocabulary, 300), out=out, seed=seed)


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may alter."""
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(scope="module")
def passed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after `release check`."""
    root = tmp_path_factory.mktemp("passed") / "here"
    shutil.copytree(made, root)
    check_release(root / "site", synthetic=root / "new")
    return root


def test_a_generator_that_learnt_no_one_by_heart_passes_on_real_structures(passed):
    report = check_release(passed / "site", synthetic=passed / "new")
    assert [f"{one.gate}: {one.reason}" for one in report.verdict.blocking] == []
    assert report.verdict.outcome is Outcome.passed
    assert (report.run, report.limit) == (1, 3)
    assert report.verdict.not_run == ("G9 canaries",)


def test_the_same_patients_are_examined_once_and_their_verdict_is_shown_again(passed):
    for _ in range(4):
        check_release(passed / "site", synthetic=passed / "new")
    assert [line["event"] for line in runs.read(passed / "site") if line["event"] == "run"] == ["run"]


def test_what_passed_is_exported_with_a_card(passed, tmp_path):
    made = export(passed / "site", synthetic=passed / "new", out=tmp_path / "out")
    assert {path.name for path in made.iterdir()} == {"events", "tables", "card.json", "card.md", "manifest.json"}
    card = json.loads((made / "card.json").read_text(encoding="utf-8"))
    assert card["gate"]["verdict"] == "PASS"
    assert (card["officer"], card["privacy"], card["study"]) == (None, None, "gated")
    for part in ("events", "tables"):
        assert card[f"{part}_sha256"] == artefacts.sha256_folder(made / part)  # the receiver can verify it
    assert (
        card["generator_sha256"]
        == artefacts.read_manifest(passed / "new/records", kind="records")["inputs"]["generator"]
    )
    text = (made / "card.md").read_text(encoding="utf-8")
    assert "passed the tests" in text
    assert "there is no epsilon" in text
    assert "anonymous" not in text.lower()
    assert artefacts.read_manifest(made, kind="export", verify=True)["facts"]["synthetic"] is True


def test_an_export_holds_no_record_no_seed_and_no_figure_of_a_gate(passed, tmp_path):
    made = export(passed / "site", synthetic=passed / "new", out=tmp_path / "out")
    assert not [path for path in made.rglob("*") if path.suffix == ".safetensors"]
    assert [path.parent for path in made.rglob("manifest.json")] == [made]
    said = "".join((made / name).read_text(encoding="utf-8") for name in ("card.json", "card.md", "manifest.json"))
    assert "seed" not in said
    assert "auc" not in said.lower()


def test_nothing_leaves_before_the_gate_has_seen_it_not_even_by_an_officers_name(here, tmp_path):
    for override in (None, OFFICER):
        with pytest.raises(ReleaseBlocked, match="the gate has not seen these patients"):
            export(here / "site", synthetic=here / "new", out=tmp_path / "out", override=override)
    assert not (tmp_path / "out").exists()


def leaked(here: Path) -> None:
    """Training patients take the place of half of the synthetic ones: records, events and tables anew."""
    import numpy as np

    from fairsynth.synthesis.decode import write_events, write_tables
    from fairsynth.visits.cohort import load_cohort

    manifest = artefacts.read_manifest(here / "new/records", kind="records")
    train_records = load_cohort(here / "site").train.take(np.arange(150))
    shutil.rmtree(here / "new")
    with artefacts.new(here / "new", kind="records", inputs=manifest["inputs"], facts=manifest["facts"]) as folder:
        train_records.save(folder / "000000.safetensors")
    events = write_events(train_records, root=here / "site", out=here / "new", seed=1)
    config = json.loads((here / "site/site.json").read_text(encoding="utf-8"))["config"]
    write_tables(events, config=Path(config), out=here / "new")


def test_copies_are_blocked_with_every_gate_that_failed_and_what_to_do(here, tmp_path, capsys):
    leaked(here)
    assert fairsynth("release", "check", here / "site", "--synthetic", here / "new") == 2
    said = capsys.readouterr()
    assert "G1" in said.out
    assert "This page stays at the site" in said.out
    for gate in ("G1 exact copies", "G2 near copies", "G3 membership"):
        assert f"FS-500 {gate}" in said.err
    assert "do: " in said.err
    arguments = ("release", "export", here / "site", "--synthetic", here / "new", "--out", tmp_path / "out")
    assert fairsynth(*arguments) == 2
    assert "FS-500 G1 exact copies: FAIL" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_officer_releases_by_name_and_it_is_recorded(here, tmp_path, capsys):
    leaked(here)
    fairsynth("release", "check", here / "site", "--synthetic", here / "new", "--json")
    assert json.loads(capsys.readouterr().out)["verdict"]["results"][0]["gate"] == "G0"
    arguments = ["release", "export", here / "site", "--synthetic", here / "new", "--out", tmp_path / "out"]
    assert fairsynth(*arguments, "--officer-override", "A. Officer") == 2  # no reason
    reason = "copies agreed with the patients themselves"
    assert fairsynth(*arguments, "--officer-override", "A. Officer", "--reason", reason, "--json") == 0
    card = json.loads((tmp_path / "out/export/card.json").read_text(encoding="utf-8"))
    assert (card["gate"]["verdict"], card["officer"]) == ("FAIL", "A. Officer")
    assert "did not pass" in card["statement"]
    assert reason not in (tmp_path / "out/export/card.md").read_text(encoding="utf-8")
    last = runs.read(here / "site")[-1]
    assert (last["event"], last["officer"], last["reason"], last["outcome"]) == ("export", "A. Officer", reason, "FAIL")
    assert "G1" in last["gates"]


def test_a_name_is_not_on_the_card_where_no_override_was_needed(passed, tmp_path):
    made = export(passed / "site", synthetic=passed / "new", out=tmp_path / "out", override=OFFICER)
    assert json.loads((made / "card.json").read_text(encoding="utf-8"))["officer"] is None


def test_a_new_seed_is_another_run_of_the_same_generator_and_the_fourth_is_refused(here):
    for number in range(3):
        runs.begin(here / "site", generator=_generator(here), candidate=str(number))
    with pytest.raises(ReleaseBlocked, match="before the gate 3 times"):
        check_release(here / "site", synthetic=here / "new")


def _generator(here: Path) -> str:
    return str(artefacts.read_manifest(here / "new/records", kind="records")["inputs"]["generator"])


def test_events_of_other_records_are_refused(here):
    manifest = artefacts.read_manifest(here / "new/records", kind="records")
    (one, *_) = sorted((here / "new/records").glob("*.safetensors"))
    with artefacts.new(here / "new", kind="records", inputs=manifest["inputs"], facts=manifest["facts"]) as folder:
        shutil.copy(one, folder / "0.safetensors")  # the first patients alone
    with pytest.raises(ArtefactError, match="not of one piece"):
        check_release(here / "site", synthetic=here / "new")
    assert runs.read(here / "site") == []


def test_a_table_that_was_altered_after_the_verdict_does_not_leave(passed, tmp_path):
    shutil.copytree(passed, tmp_path / "here")
    path = next((tmp_path / "here/new/tables").glob("*.csv"))
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(ArtefactError, match="altered"):
        export(tmp_path / "here/site", synthetic=tmp_path / "here/new", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_verdict_that_was_altered_opens_no_door(here, tmp_path):
    leaked(here)
    check_release(here / "site", synthetic=here / "new")
    path = here / "site/release/verdict.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"FAIL"', '"PASS"'), encoding="utf-8")
    with pytest.raises(ReleaseBlocked, match="has not seen"):
        export(here / "site", synthetic=here / "new", out=tmp_path / "out")


def test_what_the_files_may_not_hold_is_counted_without_being_told(here):
    assert file_problems(here / "new", root=here / "site") == ()
    assert rare_source_codes(here / "new", root=here / "site", least=11) == 0
    (shard,) = (here / "new/events/data").glob("*.parquet")
    events = pl.read_parquet(shard)
    real = pl.read_parquet(next((here / "site/events/data").glob("*.parquet")))["subject_id"][0]
    first = pl.int_range(pl.len()) == 0
    events.with_columns(
        code=pl.when(first).then(pl.lit("NOTE//Mr Li, fell ill")).otherwise("code"),
        subject_id=pl.when(first).then(real).otherwise("subject_id"),
        time=pl.when(pl.int_range(pl.len()) == pl.len() - 1).then(pl.datetime(2019, 5, 1)).otherwise("time"),
    ).write_parquet(shard)
    path = here / "new/tables/DIAGNOSES_ICD.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, "=1+1" + "," * lines[0].count(",")]) + "\n", encoding="utf-8")
    problems = file_problems(here / "new", root=here / "site")
    assert len(problems) == 4
    assert "Li" not in "".join(problems)
    assert rare_source_codes(here / "new", root=here / "site", least=11) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
import fairsynth.synthesis.release.{module} as at
at.{function} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
site, new, out = map(Path, sys.argv[1:])
{call}
"""


def killed(here: Path, out: Path, **words: str) -> None:
    command = [sys.executable, "-c", KILLED.format(**words), here / "site", here / "new", out]
    assert subprocess.run(command, check=False).returncode == -9


def test_killed_in_the_gate_the_run_is_counted_and_there_is_no_verdict(here, tmp_path):
    call = "at.check_release(site, synthetic=new)"
    killed(here, tmp_path / "out", module="check", function="examine", call=call)
    assert [line["event"] for line in runs.read(here / "site")] == ["run"]
    assert not (here / "site/release").exists()


def test_killed_in_an_export_nothing_is_to_be_seen_and_the_next_one_is_whole(passed, tmp_path):
    out = tmp_path / "out"
    call = "at.export(site, synthetic=new, out=out)"
    killed(passed, out, module="export", function="markdown", call=call)
    assert not (out / "export").exists()
    assert runs.read(passed / "site")[-1]["event"] == "export"
    made = export(passed / "site", synthetic=passed / "new", out=out)
    assert [path.name for path in out.iterdir()] == ["export"]
    artefacts.read_manifest(made, kind="export", verify=True)


def test_a_site_without_synthetic_patients_is_told_how_to_make_them(here, capsys):
    assert fairsynth("release", "check", here / "site") == 2
    assert "fairsynth generate" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["no JSON", '{"codes": 3}', "[[3]]", "[1]"])
def test_a_list_of_canaries_that_is_none_is_refused_before_a_run_is_counted(here, text, capsys):
    path = here / "canaries.json"
    path.write_text(text, encoding="utf-8")
    assert fairsynth("release", "check", here / "site", "--synthetic", here / "new", "--canaries", path) == 2
    assert "FS-100 no list of canaries" in capsys.readouterr().err
    assert runs.read(here / "site") == []


def test_a_secret_that_is_no_code_is_refused_before_a_run_is_counted(here, capsys):
    arguments = ("release", "check", here / "site", "--synthetic", here / "new", "--secret", "DX//NOTHING")
    assert fairsynth(*arguments) == 2
    assert "FS-100 no such code" in capsys.readouterr().err
    assert runs.read(here / "site") == []
