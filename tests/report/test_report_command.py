"""The end of `fairsynth study`: what it prints of a run, whoever has the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finished import COHORTS, make_plan, write
from finished_at_home import write_site
from finished_noised import make_noised_plan, write_noised

from fairsynth.cli.app import main
from fairsynth.cli.study import show
from fairsynth.experiments.study import Run


@pytest.fixture(scope="module")
def noised_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root, plan = tmp_path_factory.mktemp("run"), make_noised_plan()
    write_noised(root / "server", plan=plan)
    for site in COHORTS:
        write_site(root / "sites" / site, site=site, plan=plan)
    return Run(root=root)


def test_a_noised_run_prints_what_was_charged_and_each_sites_own_verdict(noised_run: Run, capsys) -> None:
    show(noised_run, as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "epsilon 2.99, delta 1e-06 for one patient of one site" in text
    assert "north (from its own folder), transformer: Augment: worst TPR changes by +0.123" in text
    assert "south (from its own folder), transformer: Do not augment: the gain is within noise" in text
    assert f"report: {noised_run.report}" in text
    assert f"a hospital's own page: fairsynth report {noised_run.root / 'sites' / 'north'}" in text


def test_a_noised_run_has_no_summary_for_programs(noised_run: Run, capsys) -> None:
    show(noised_run, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"report": str(noised_run.report), "summary": None}


def test_the_report_command_tells_a_run_from_a_site(noised_run: Run) -> None:
    for folder, title in ((noised_run.root, "What the server knows."), (noised_run.site("south"), "its own page")):
        with pytest.raises(SystemExit) as ended:
            main(["report", str(folder)])
        assert ended.value.code == 0
        assert title in (folder / "report.html").read_text(encoding="utf-8")


def test_a_plain_run_prints_its_tables_and_how_a_hospital_makes_its_own_page(tmp_path: Path, capsys) -> None:
    write(tmp_path / "server", plan=make_plan())
    write_site(tmp_path / "sites" / "north")
    show(Run(root=tmp_path), as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "Real only" in text
    assert f"a hospital's own page: fairsynth report {tmp_path / 'sites' / 'north'}" in text
