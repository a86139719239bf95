"""The server's page of a study with noise: what was charged and what left, and no result that nobody sent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from finished import GROUPS, write
from finished_noised import make_noised_plan, write_noised
from test_report_build import Checker, words

from fairsynth.errors import ArtefactError
from fairsynth.federation.journal import read, text_of
from fairsynth.report import build
from fairsynth.report.noised import read_noised
from fairsynth.report.noised_page import noised_page
from fairsynth.report.study import read_finished


def seen(text: str) -> str:
    return " ".join(words(text).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("noised")
    return build(write_noised(folder / "server"), out=folder / "report.html").read_text(encoding="utf-8")


def test_a_study_without_an_audit_at_the_server_has_a_well_formed_page(report: str) -> None:
    checker = Checker()
    checker.feed(report)
    assert checker.wrong == []
    assert checker.open == []
    assert {address[1:] for address in checker.addresses} <= set(checker.ids)
    assert "script" not in checker.tags
    assert not re.search(r"https?:", report)


def test_the_page_has_no_verdict_no_approaches_and_no_losses(report: str) -> None:
    text = seen(report)
    for absent in ("Finding.", "Should a site augment?", "Trained on", "Worst TPR", "R2", "nats a visit"):
        assert absent not in text
    assert 'id="nll-alt"' not in report
    assert 'id="loss-alt"' not in report
    assert "0.4321" not in text  # the loss that the journal has of counted rounds


def test_what_one_patient_is_charged_stands_at_the_top_and_is_explained(report: str) -> None:
    text = seen(report)
    top = text[: text.index("Where the results are")]
    assert "epsilon 2.99 and delta 1e-06 for one patient of one site, over the whole study" in top
    assert "privacy loss distributions" in text
    assert "12 steps" in text
    assert "noise of 5.68 times what one patient can change" in text
    assert "counted in rounds 0 and 2 of the FairSynth generator" in text
    assert "Epsilon covers" in text
    assert "It does not cover" in text


def test_where_the_results_are_is_said_with_the_command(report: str) -> None:
    assert "fairsynth report SITE_FOLDER" in seen(report)
    assert "predictors were trained and judged at each hospital" in seen(report)


@pytest.mark.parametrize("roster, told", [(("north", "south"), True), (("east", "north", "south"), False)])
def test_two_sites_are_told_that_each_sees_the_others_noised_numbers(tmp_path: Path, roster, told: bool) -> None:
    plan = make_noised_plan(roster=roster, quorum=len(roster))
    text = seen(build(write_noised(tmp_path / "s", plan=plan), out=tmp_path / "r.html").read_text(encoding="utf-8"))
    assert ("With two sites, the other hospital can take its own share off" in text) == told
    assert f"{len(roster)} sites trained the generators together" in text


def test_the_cohort_is_called_noised_and_groups_left_out_are_named_without_a_number(tmp_path: Path) -> None:
    content = noised_page(read_noised(write_noised(tmp_path / "s")))
    table = content.cohort
    assert [row.name for row in table.rows] == ["white", "black"]
    assert [cell.text for cell in table.rows[0].cells] == ["1,381", "178", "170", "22", "537", "88"]
    assert table.rows[1].cells[3].missing == "<11"  # 7
    assert "Noised, not exact." in table.note
    assert "Left out, or without a patient: asian." in table.note
    assert any(warning.startswith("Left out: asian.") for warning in content.warnings)


def test_only_counted_rounds_of_the_counted_arm_are_drawn(report: str) -> None:
    (rates,) = [figure for figure in re.findall(r"<svg.*?</svg>", report, re.DOTALL) if 'id="rates-alt"' in figure]
    assert "FairSynth generator" in rates
    assert "Plain generator" not in rates
    assert "asian" not in re.findall(r"<text[^>]*>([^<]*)</text>", rates)
    curves = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="[^"]*stroke-width: 1\.8', rates)
    assert [len(re.findall("[ML]", curve)) for curve in curves] == [2, 2]  # white and black in rounds 0 and 2


def test_a_study_that_was_never_counted_has_no_figure(tmp_path: Path) -> None:
    content = noised_page(read_noised(write_noised(tmp_path / "s", counted=False)))
    assert content.training == ()


@pytest.mark.parametrize("lacking, said", [("privacy", "what a patient is charged"), ("ended", "unfinished")])
def test_a_journal_without_the_charge_or_the_end_gives_an_error_and_no_file(tmp_path: Path, lacking, said) -> None:
    root = write_noised(tmp_path / "server", **{lacking: False})
    with pytest.raises(ArtefactError, match=said):
        build(root, out=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_charge_that_does_not_fit_is_named(tmp_path: Path) -> None:
    root = write_noised(tmp_path / "server")
    journal = root / "journal.jsonl"
    told = [{**event, "epsilon": "little"} if "epsilon" in event else event for event in read(journal)]
    journal.write_bytes(b"".join(map(text_of, told)))
    with pytest.raises(ArtefactError, match=r"journal\.jsonl(.|\n)*epsilon"):
        read_noised(root)


def test_whoever_asks_for_results_of_such_a_study_is_sent_to_the_sites(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="fairsynth report SITE_FOLDER"):
        read_finished(write_noised(tmp_path / "server"))


def test_a_study_without_noise_still_needs_its_audit(tmp_path: Path) -> None:
    root = write(tmp_path / "server")
    (root / "audit" / "manifest.json").unlink()
    with pytest.raises(ArtefactError, match="no audit artefact"):
        build(root, out=tmp_path / "report.html")


def test_markup_in_names_is_escaped_on_this_page_too(tmp_path: Path) -> None:
    nasty = "<script>alert('x')</script>"
    groups = {"names": (GROUPS[0], nasty, GROUPS[2]), "reference": GROUPS[:1]}
    root = write_noised(tmp_path / "server", plan=make_noised_plan(groups=groups))
    text = build(root, out=tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert nasty in words(text)


def test_the_same_study_gives_the_same_page(tmp_path: Path, report: str) -> None:
    assert build(write_noised(tmp_path / "s"), out=tmp_path / "r.html").read_text(encoding="utf-8") == report
