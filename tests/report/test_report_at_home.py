"""A hospital's own page: its exact counts and its verdict, for its eyes, and nothing that its folder does not hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from finished import CODES, COHORTS, PREDICTORS, make_plan, write
from finished_at_home import write_audit, write_cohort, write_site
from finished_noised import make_noised_plan
from test_report_build import Checker, verdict_rows, words

from fairsynth.cli.app import main
from fairsynth.errors import ArtefactError
from fairsynth.report import build, build_own
from fairsynth.report.at_home import read_own
from fairsynth.visits.cohort import shared_vocabulary

THREE = {"roster": ["east", "north", "south"], "quorum": 3, "privacy": {"profile": "exact"}}
TUNED = "Transformer, threshold: tuned on validation patients"


def seen(text: str) -> str:
    return " ".join(words(text).split())


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of site north of a masked study of three sites."""
    folder = tmp_path_factory.mktemp("own")
    site = write_site(folder / "north", plan=make_plan(**THREE))
    return build_own(site, out=folder / "report.html").read_text(encoding="utf-8")


def test_the_page_says_first_that_it_is_for_the_hospital_alone_and_no_release(own: str) -> None:
    text = seen(own)
    assert text.index("it is no release") < text.index("Finding.")
    assert "For this hospital alone. This page is for site north itself." in text
    assert "Counts of fewer than 11 people are not printed all the same" in text


def test_the_page_is_complete_well_formed_and_asks_the_network_for_nothing(own: str) -> None:
    checker = Checker()
    checker.feed(own)
    assert checker.wrong == []
    assert checker.open == []
    assert {address[1:] for address in checker.addresses} <= set(checker.ids)
    assert all(address.startswith("#") for address in checker.addresses)
    assert "script" not in checker.tags


def test_a_masked_study_has_the_sites_own_verdict_on_its_own_page(own: str) -> None:
    (row,) = verdict_rows(own, TUNED)
    assert row == [
        "north",
        "Augment",
        "+0.123 at least 0.046 of white and black",
        "−0.004 at least −0.012",
        "−0.210 at most −0.031",
    ]


def test_the_finding_and_every_table_are_of_this_site_alone(own: str) -> None:
    text = seen(own)
    held_out = sum(map(sum, COHORTS["north"][2]))
    assert f"On {held_out} real held-out patients of site north" in text
    assert "Site north: TPR by group on real held-out patients." in text
    assert "on real held-out patients of site north, with 95 % intervals" in text
    assert "All sites" not in text
    assert "all sites together" not in text.replace("a hash that names the data of all sites together", "")
    assert "Missing sites" not in text


def test_the_numbers_are_those_that_a_plain_study_has_of_the_site(tmp_path: Path) -> None:
    server = build(write(tmp_path / "server"), out=tmp_path / "r.html").read_text(encoding="utf-8")
    mine = build_own(write_site(tmp_path / "north"), out=tmp_path / "own.html").read_text(encoding="utf-8")
    for caption in ("Site north: TPR by group", "Patients of site north by group", "Site north: 501 real held-out"):
        tables = [re.search(rf"<caption>{caption}.*?</table>", text, re.DOTALL) for text in (server, mine)]
        first, second = (table.group(0) for table in tables if table is not None)
        assert first == second


def test_no_small_count_is_printed_on_the_own_page(own: str) -> None:
    """North's cells of 5, 1 and 3 patients, 14 held out, and a step of its flow that 4 patients passed."""
    tables = re.findall(r"<table>.*?</table>", own, flags=re.DOTALL)
    named = ("by group, split and outcome", "TPR by group on real held-out", "Cohort flow of site north")
    chosen = [table for table in tables if any(name in table for name in named)]
    assert len(chosen) >= 3
    for table in chosen:
        cells = [words(cell).strip() for cell in re.findall(r"<td>(.*?)</td>", table, flags=re.DOTALL)]
        counts = [int(cell.replace(",", "")) for cell in cells if re.fullmatch(r"[\d,]+", cell)]
        assert counts
        assert not [count for count in counts if 0 < count < 11]


def test_what_only_the_server_knows_is_left_out_and_said_to_be(own: str) -> None:
    text = seen(own)
    assert "server's journal, which a site does not have" in text
    assert 'id="nll-alt"' not in own
    assert 'id="rates-alt"' not in own
    assert len(re.findall(r"<svg", own)) == 2
    assert "Time in rounds" not in text
    assert text.count("not kept") == 3  # codes proposed, occurrences covered, and in this folder the data's hash


def test_the_page_of_a_taught_study_says_where_the_guides_are_told(tmp_path: Path) -> None:
    plan = make_plan(augmentation={"synthetic_patients": 500, "candidates": "taught"})
    text = seen(build_own(write_site(tmp_path / "s", plan=plan), out=tmp_path / "r.html").read_text("utf-8"))
    assert "Which guides were tried is in the server's journal" in text


@pytest.mark.parametrize(
    "plan, protection",
    [
        (make_plan(), "This study was plain"),
        (make_plan(**THREE), "This study was masked"),
        (make_noised_plan(), "What left the sites had noise"),
    ],
    ids=["plain", "exact", "noise"],
)
def test_a_site_of_any_profile_has_its_page_and_what_left_it(tmp_path: Path, plan, protection: str) -> None:
    text = seen(build_own(write_site(tmp_path / "s", plan=plan), out=tmp_path / "r.html").read_text("utf-8"))
    assert protection in text
    assert "Should a site augment? north: augment." in text


def test_a_group_that_the_site_does_not_have_is_named_once_and_not_called_unknown(tmp_path: Path) -> None:
    site = write_site(tmp_path / "south", site="south")
    found = read_own(site)
    assert [row.group for row in found.whole.groups] == ["white", "black"]
    text = build_own(site, out=tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No patient at this site: asian." in seen(text)
    assert "INSUFFICIENT: asian" not in seen(text)


def test_a_site_without_an_audit_is_told_to_wait_for_it_and_no_file_is_written(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north", audited=False)
    with pytest.raises(ArtefactError, match=r"without an audit(.|\n)*last step"):
        build_own(site, out=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_an_audit_of_another_study_is_refused(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north", audited=False)
    write_audit(site, site="north", plan=make_plan(seed=8))
    with pytest.raises(ArtefactError, match="another study"):
        read_own(site)


def test_an_audit_of_other_patients_than_the_cohort_is_refused(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north")
    write_cohort(site, COHORTS["south"], vocabulary=shared_vocabulary(CODES, plan=make_plan()))
    with pytest.raises(ArtefactError, match="other patients"):
        read_own(site)


def test_counts_that_were_altered_are_refused(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north")
    told = site / "audit" / "changes.json"
    told.write_text(told.read_text(encoding="utf-8").replace("0.1234", "0.4321"), encoding="utf-8")
    with pytest.raises(ArtefactError, match="altered"):
        read_own(site)


@pytest.mark.parametrize("name", ["plan.json", "shared.json", "cohort/manifest.json", "audit/axes.json"])
def test_a_site_folder_that_lacks_a_file_gives_one_clear_error(tmp_path: Path, name: str) -> None:
    site = write_site(tmp_path / "north")
    (site / name).unlink()
    with pytest.raises(ArtefactError):
        build_own(site, out=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_command_takes_a_sites_folder_and_leaves_the_page_in_it(tmp_path: Path, capsys) -> None:
    site = write_site(tmp_path / "north")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(site)])
    assert ended.value.code == 0
    assert "its own page" in (site / "report.html").read_text(encoding="utf-8")
    assert (site / "report.html").stat().st_mode & 0o077 == 0
    assert str(site / "report.html") in capsys.readouterr().out


def test_every_predictor_of_the_plan_is_on_the_page(own: str) -> None:
    names = {"transformer": "Transformer", "logistic_regression": "Logistic regression"}
    assert all(f"{names[name]}, threshold: score of at least 0.5" in seen(own) for name in PREDICTORS)


def test_the_folder_that_was_read_is_left_as_it_was(tmp_path: Path) -> None:
    site = write_site(tmp_path / "north")
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    build_own(site, out=tmp_path / "report.html")
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before
    assert json.loads((site / "site.json").read_text(encoding="utf-8"))["site"] == "north"
