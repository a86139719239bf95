"""`fairsynth vocabulary` on two simulated hospitals with different code systems."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from fairsynth.cli import main
from fairsynth.errors import ConfigError
from fairsynth.experiments.vocabulary import site_vocabulary, survey_vocabulary
from fairsynth.visits.coverage import Coverage

ROOT = Path(__file__).resolve().parents[2]
STUDY = f"""schema: fairsynth.study/1
name: words
seed: 3
sites:
  - {{site: boston, config: {ROOT}/site_configs/mimic3, simulate: {{source: mimic3, patients: 300, detail: 0.02}}}}
  - {{site: zhejiang, config: {ROOT}/site_configs/pic, simulate: {{source: pic, patients: 300, detail: 0.02}}}}
privacy: {{agreement: toys}}
groups:
  names: [white, black, hispanic, asian, other, han, yi, buyei, miao, tujia, hui]
  reference: [white, han]
"""


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    return folder, survey_vocabulary(folder / "study.yaml", out=folder / "run")


def test_the_shares_are_those_of_the_events(surveyed):
    folder, report = surveyed
    tokens = {
        site: pl.read_parquet(folder / "run" / "sites" / site / "visits" / "tokens.parquet")["token"].unique()
        for site in ("boston", "zhejiang")
    }
    boston = report.sites[0]
    events = pl.read_parquet(folder / "run" / "sites" / "boston" / "events" / "data" / "*.parquet")
    kinds = {row.kind: row for row in boston.kinds}
    assert kinds["drugs"].events == events["code"].str.starts_with("DRUG//").sum()
    assert kinds["diagnoses"].mapped == pytest.approx(1.0)
    assert kinds["units"].mapped is None
    assert 0 < kinds["drugs"].shared < kinds["drugs"].agreed <= 1
    assert kinds["procedures"].shared == 0  # PIC has none
    assert 0 < kinds["labs"].shared <= kinds["labs"].agreed < kinds["labs"].mapped <= 1
    assert tokens["boston"].is_in(tokens["zhejiang"]).any()


def test_two_code_systems_share_diagnoses_and_every_agreed_code_has_a_proposer(surveyed):
    _, report = surveyed
    agreed = {row.kind: row for row in report.agreed}
    assert agreed["diagnoses"].by_sites[1] > 0
    assert agreed["labs"].by_sites[1] > 20
    assert all(row.codes == sum(row.by_sites) for row in report.agreed)


def test_a_code_of_few_patients_is_counted_and_never_named():
    rows = [  # kind, code, standard, events, patients
        ("drugs", "DRUG//Heparin", True, 60, 30),
        ("drugs", "DRUG//Vial", False, 30, 11),
        ("drugs", "DRUG//Ms Smith's own", False, 10, 10),
        ("drugs", "DRUG//Syringe", False, 1, 1),
        ("observations", "OBS//x", False, 5, 4),
    ]
    columns = ("kind", "code", "standard", "events", "patients")
    codes = pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        unit=pl.lit(None, pl.String), description=pl.lit(None, pl.String)
    )
    tokens = [("drugs", "RX//heparin", 60), ("drugs", None, 41), ("observations", "OBS//x", 5)]
    found = Coverage(
        codes=codes,
        tokens=pl.DataFrame(tokens, schema=("kind", "token", "events"), orient="row"),
        patients={"drugs": 40, "observations": 4},
    )
    proposed = {"here": {"RX//heparin"}, "there": {"RX//other"}}
    site = site_vocabulary("here", found, proposed=proposed, least=11)
    assert [(code.code, code.events, code.patients) for code in site.unmapped] == [("DRUG//Vial", 30, 11)]
    assert site.rare == {"drugs": 2}
    drugs, observations = site.kinds
    assert (drugs.events, drugs.mapped, drugs.agreed, drugs.shared) == (101, 60 / 101, 60 / 101, 0.0)
    assert (observations.events, observations.mapped, observations.agreed, observations.shared) == (None,) * 4


def test_a_program_reads_the_same_as_one_object_and_a_person_a_table(surveyed, capsys):
    folder, report = surveyed
    arguments = ["vocabulary", str(folder / "study.yaml"), "--out", str(folder / "run")]
    for extra in (["--json"], []):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, *extra])
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        if extra:
            found = json.loads(printed)
            assert [site["site"] for site in found["sites"]] == ["boston", "zhejiang"]
            assert found["agreed"][0]["codes"] == report.agreed[0].codes
        else:
            assert "shared with another site" in printed


def test_the_visits_of_another_studys_run_are_left_alone(surveyed, tmp_path):
    folder, _ = surveyed
    other = tmp_path / "run"
    (other / "sites").mkdir(parents=True)
    (other / "server").mkdir()
    from fairsynth.config import read_study

    plan = read_study(folder / "study.yaml").plan().model_copy(update={"seed": 4})
    (other / "server" / "plan.json").write_text(plan.model_dump_json(by_alias=True), encoding="utf-8")
    with pytest.raises(ConfigError, match="a run of another plan"):
        survey_vocabulary(folder / "study.yaml", out=other)
