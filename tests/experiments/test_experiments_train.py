"""`fairsynth train` on a simulated hospital: one site, no server, killed and resumed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fairsynth.artefacts import read_manifest, sha256_folder
from fairsynth.cli import main
from fairsynth.errors import ArtefactError, ConfigError
from fairsynth.experiments.generate import generate, source_of_model
from fairsynth.experiments.train import Model, train
from fairsynth.halo import HALO, conditions
from fairsynth.visits.cohort import load_cohort

ROOT = Path(__file__).resolve().parents[2]
STUDY = f"""schema: fairsynth.study/1
name: alone
seed: 3
sites:
  - {{site: boston, config: {ROOT}/site_configs/mimic3, data: raw/boston}}
  - {{site: zhejiang, config: {ROOT}/site_configs/pic, data: raw/zhejiang}}
privacy: {{agreement: toys}}
groups:
  names: [han, yi, buyei, miao, tujia, hui, other]
  reference: [han]
vocabulary: {{minimum_patients: 5}}
generator: {{embedding: 16, layers: 1, heads: 2}}
fit: {{epochs: 3, batch_size: 16, warm_up_steps: 5, threads: 1, device: cpu}}
"""


def fairsynth(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    raw = folder / "raw" / "zhejiang"
    assert fairsynth("simulate", "pic", "--patients", 300, "--detail", 0.02, "--mix", "study", "--out", raw) == 0
    path = folder / "study.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    model, _ = train(study, site="zhejiang", out=tmp_path_factory.mktemp("models") / "zhejiang")
    return model


def weights(model: Model) -> str:
    return sha256_folder(model.root / "generator")


def test_the_folder_holds_the_sites_own_disk_and_a_generator(trained: Model) -> None:
    expected = {"plan.json", "site.json", "events", "visits", "cohort", "generator"}
    assert {path.name for path in trained.root.iterdir()} == expected
    assert trained.plan.roster == ("zhejiang",)
    cohort, halo = load_cohort(trained.root), HALO.load(trained.root, device="cpu")
    assert halo.vocabulary == cohort.vocabulary
    best = halo.history.epochs[halo.history.best].validation
    assert halo.nll(cohort.validation) == pytest.approx(best, rel=1e-6)


def test_the_generators_folder_holds_weights_and_what_they_mean_and_no_patient(trained: Model) -> None:
    names = {path.name for path in (trained.root / "generator").iterdir()}
    assert names == {"manifest.json", "weights.safetensors", "vocabulary.json", "config.json"}
    assert set(read_manifest(trained.root / "generator", kind="generator")["facts"]) == {"seed", "fit", "history"}


def test_the_command_says_where_the_model_is_and_how_good(study: Path, tmp_path: Path, capsys) -> None:
    options = ("--site", "zhejiang", "--out", tmp_path / "model", "--epochs", 1, "--json")
    assert fairsynth("train", study, *options) == 0
    printed = capsys.readouterr()
    assert "epoch 1 of 1: training NLL" in printed.err
    said = json.loads(printed.out)
    assert (said["model"], said["best_epoch"], said["epochs"]) == (str(tmp_path / "model"), 1, 1)
    assert said["validation"] > 0


class Power(Exception):
    """The power goes."""


def interrupted(study: Path, out: Path, *, at: int) -> None:
    """A training that ends after its step number `at`."""

    def on_event(event: dict) -> None:
        if event["event"] == "fit_step" and event["done"] == at:
            raise Power

    with pytest.raises(Power):
        train(study, site="zhejiang", out=out, every_seconds=0.0, on_event=on_event)


def test_a_training_that_stopped_is_resumed_to_the_same_weights(study: Path, trained: Model, tmp_path: Path) -> None:
    out = tmp_path / "model"
    interrupted(study, out, at=20)
    with pytest.raises(ConfigError, match="begun here and not ended"):
        train(study, site="zhejiang", out=out)
    with pytest.raises(ArtefactError, match="other configuration"):
        train(study, site="zhejiang", out=out, options={"epochs": 9}, resume=True)
    model, halo = train(study, site="zhejiang", out=out, resume=True)
    assert weights(model) == weights(trained)
    assert halo.history == HALO.load(trained.root).history
    assert not model.unfinished


def test_a_finished_model_is_kept_by_resume_and_replaced_by_force_only(study: Path, trained: Model) -> None:
    before = weights(trained), (trained.root / "generator").stat().st_ino
    with pytest.raises(ConfigError, match="a model is here"):
        train(study, site="zhejiang", out=trained.root)
    train(study, site="zhejiang", out=trained.root, resume=True)
    assert (weights(trained), (trained.root / "generator").stat().st_ino) == before
    train(study, site="zhejiang", out=trained.root, force=True)
    assert weights(trained) == before[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"site": "nowhere"}, "unknown site: nowhere"),
        ({"site": "boston"}, "missing folder of tables"),
        ({"site": "zhejiang", "options": {"epochs": 0}}, "bad value: options  epochs"),
        ({"site": "zhejiang", "options": {"device": "abacus"}}, "bad value: options  device"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(study: Path, tmp_path: Path, options, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(study, out=tmp_path / "model", **options)
    assert list(tmp_path.iterdir()) == []


def test_of_several_sites_one_must_be_named(tmp_path: Path) -> None:
    study = STUDY.replace("data: raw/boston", "simulate: {source: mimic3}")
    (tmp_path / "study.yaml").write_text(study.replace("data: raw/zhejiang", "simulate: {source: pic}"))
    with pytest.raises(ConfigError, match=r"several sites.*\n.*--site, one of: boston, zhejiang"):
        train(tmp_path / "study.yaml", out=tmp_path / "model")


def test_a_folder_of_something_else_is_left_alone(study: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not of a model"):
        train(study, site="zhejiang", out=tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# --- generate --------------------------------------------------------------------------------------------------------


def test_a_model_generates_events_and_tables_without_a_server(trained: Model, tmp_path: Path, capsys) -> None:
    options = ("--patients", 40, "--group", "yi", "--label", 1, "--sex", "female", "--out", tmp_path / "new", "--json")
    assert fairsynth("generate", trained.root, *options) == 0
    assert json.loads(capsys.readouterr().out)["patients"] == 40
    patients = pl.read_csv(tmp_path / "new" / "tables" / "PATIENTS.csv", infer_schema=False)
    assert len(patients) == 40
    assert set(patients["GENDER"]) == {"F"}
    events = pl.read_parquet(tmp_path / "new" / "events" / "data" / "*.parquet")
    assert events["subject_id"].n_unique() == 40
    assert (events["code"] == "MEDS_DEATH").sum() == 40


def test_the_same_seed_generates_the_same_files(trained: Model, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        assert fairsynth("generate", trained.root, "--patients", 30, "--seed", seed, "--out", tmp_path / name) == 0
    one, same, other = (sha256_folder(tmp_path / name / "tables") for name in ("one", "same", "other"))
    assert one == same != other


def test_what_a_killed_process_left_is_no_obstacle_and_drawing_is_told(trained: Model, tmp_path: Path) -> None:
    (tmp_path / "new" / ".events.left").mkdir(parents=True)
    source, told = source_of_model(trained), []
    asked = conditions(source.vocabulary, 300)
    assert generate(source, conditions=asked, out=tmp_path / "new", seed=1, on_patients=told.append) == 300
    assert told == [256, 300]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"events", "tables", "records"}


def test_events_without_their_tables_do_not_stay(trained: Model, tmp_path: Path, monkeypatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("fairsynth.experiments.generate.write_tables", fails)
    source = source_of_model(trained)
    with pytest.raises(OSError, match="disk full"):
        generate(source, conditions=conditions(source.vocabulary, 5), out=tmp_path / "new", seed=1)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--group", "martian"), "unknown group"), (("--age", "9"), "unknown age"), (("--out", "."), "folder not empty")],
)
def test_what_cannot_be_generated_is_told(trained: Model, tmp_path: Path, options, said: str, capsys) -> None:
    assert fairsynth("generate", trained.root, "--out", tmp_path / "new", *options) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_a_model_asks_for_the_site_of_a_run(tmp_path: Path, capsys) -> None:
    assert fairsynth("generate", tmp_path, "--out", tmp_path / "new") == 2
    assert "which site?" in capsys.readouterr().err


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_from_its_first_second_on_it_ends_with_the_same_weights(
    study: Path, trained: Model, tmp_path: Path, seed: int
) -> None:
    command = [sys.executable, "-c", "from fairsynth.cli import main; main()", "train", study]
    command += ["--site", "zhejiang", "--out", tmp_path / "model", "--resume", "--checkpoint-seconds", "0"]
    moments = random.Random(seed)
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(1, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert weights(Model(root=tmp_path / "model")) == weights(trained)


def test_a_copy_of_the_model_needs_no_study(trained: Model, tmp_path: Path) -> None:
    shutil.copytree(trained.root / "generator", tmp_path / "generator")
    new = HALO.load(tmp_path, device="cpu").sample(5, seed=1)
    assert len(new) == 5
    assert np.isin(new.label, (0, 1)).all()
