"""One HTML file: complete, self-contained, escaped, and silent about small cells."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from finished import COHORTS, GROUPS, make_plan, write

from fairsynth.errors import ArtefactError
from fairsynth.report import build
from fairsynth.report.build import render
from fairsynth.report.page import page
from fairsynth.report.study import read_finished

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Checker(HTMLParser):
    """Collects tags that do not close, addresses, ids and tables."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action"}]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in VOID else self.open

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def words(text: str) -> str:
    """What a reader sees, figures' text included, one cell a line."""
    text = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "\n", text))


def verdict_rows(report: str, setting: str) -> list[list[str]]:
    """The texts of the cells of the verdicts' table at `setting`."""
    (table,) = re.findall(
        rf"<caption>Should the site add FairSynth&#39;s patients\? {setting}\.</caption>(.*?)</table>",
        report,
        re.DOTALL,
    )
    return [
        [
            " ".join(words(cell.replace("<span", " <span")).split())
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        ]
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table.partition("<tbody>")[2], re.DOTALL)
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    return build(write(folder / "server"), out=folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checked(report: str) -> Checker:
    checker = Checker()
    checker.feed(report)
    return checker


def test_the_report_asks_the_network_for_nothing(report: str, checked: Checker) -> None:
    assert checked.addresses
    assert [address for address in checked.addresses if not address.startswith("#")] == []
    assert not re.search(r"https?:|@import|url\((?!#)|//cdn", report)
    assert "script" not in checked.tags
    assert "default-src 'none'" in report


def test_the_report_is_well_formed_and_its_links_lead_somewhere(checked: Checker) -> None:
    assert checked.wrong == []
    assert checked.open == []
    assert {address[1:] for address in checked.addresses} <= set(checked.ids)


def test_two_figures_never_share_an_id_with_another_content(report: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", report, flags=re.DOTALL)
    assert len(figures) == 5
    ids = [set(re.findall(r'\bid="([^"]+)"', figure)) for figure in figures]
    assert not any(first & second for index, first in enumerate(ids) for second in ids[:index])


def test_every_figure_has_a_text_alternative_with_numbers(report: str) -> None:
    descriptions = re.findall(r'<svg[^>]*role="img"[^>]*><desc id="[^"]+">([^<]+)</desc>', report)
    assert len(descriptions) == 5
    assert all(re.search(r"\d", text) for text in descriptions)


@pytest.mark.parametrize(
    "part",
    [
        "Asked: if 2 sites train",
        "Finding.",
        "The four approaches",
        "Group by group",
        "Cohort flow of site north.",
        "negative log-likelihood (nats a visit)",
        "fairness loss L_F (no unit)",
        "expected codes a patient, S_g / N_g",
        "R2 ceiling",
        "AUROC, synthetic",
        "What leaves a site",
        "what leaves a site was not masked",
        "no differential privacy",
        "How to read it",
        "Glossary",
        "TP_g",
        "torch 2.13",
        "Transformer, threshold: tuned on validation patients",
        "Transformer, threshold: score of at least 0.5",
        "Logistic regression, threshold: tuned on validation patients",
        "Logistic regression, threshold: score of at least 0.5",
    ],
)
def test_the_report_holds(report: str, part: str) -> None:
    assert part in " ".join(words(report).split())


def test_a_group_without_enough_positives_is_called_insufficient_and_named(report: str) -> None:
    seen = " ".join(words(report).split())
    assert "INSUFFICIENT: asian had fewer than 10 held-out deaths over all sites." in seen
    assert "INSUFFICIENT, left out: asian." in seen
    assert "Worst TPR is over the groups with at least 10 held-out deaths: white and black." in seen


def test_no_count_below_the_minimum_cell_is_printed(report: str) -> None:
    """The fixture's small cells (1 to 5, and 14 - 3) appear in no cell of a table; an absent group is named."""
    tables = re.findall(r"<table>.*?</table>", report, flags=re.DOTALL)
    cohort = [table for table in tables if "by group, split and outcome" in table]
    groups = [table for table in tables if "TPR by group on real held-out" in table]
    assert len(cohort) == len(COHORTS)
    for table in [*cohort, *(t for t in groups)]:
        cells = [words(cell).strip() for cell in re.findall(r"<td>(.*?)</td>", table, flags=re.DOTALL)]
        counts = [int(cell.replace(",", "")) for cell in cells if re.fullmatch(r"[\d,]+", cell)]
        assert counts
        assert not [count for count in counts if 0 < count < 11]
    assert ">asian<" not in next(table for table in cohort if "site south" in table)
    assert report.count("No patient at this site: asian.") == 1
    assert "&lt;11" in next(table for table in cohort if "site north" in table)
    assert "&lt;11" in next(table for table in tables if "Cohort flow of site north" in table)


def test_a_group_with_too_few_training_patients_is_not_drawn(report: str) -> None:
    rates = next(figure for figure in re.findall(r"<svg.*?</svg>", report, re.DOTALL) if 'id="rates-alt"' in figure)
    legend = re.findall(r"<text[^>]*>([^<]*)</text>", rates)
    assert "white" in legend
    assert "black" in legend
    assert "asian" not in legend
    assert "Left out, fewer than 11 training patients: asian." in rates


def test_markup_in_names_is_escaped_everywhere(report: str, tmp_path: Path) -> None:
    nasty = "<script>alert('x')</script>&\"$a$"
    groups = {"names": (GROUPS[0], nasty, GROUPS[2]), "reference": GROUPS[:1]}
    root = write(tmp_path / "server", plan=make_plan(groups=groups))
    text = build(root, out=tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert nasty in words(text)
    assert "with <b>age</b>" in words(report)
    checker = Checker()
    checker.feed(text)
    assert checker.wrong == []


def test_a_site_without_an_audit_is_named_as_missing(tmp_path: Path) -> None:
    root = write(tmp_path / "server", sites=("north",))
    seen = " ".join(words(build(root, out=tmp_path / "r.html").read_text(encoding="utf-8")).split())
    assert "Missing sites: south." in seen
    assert "real held-out patients of 1 site " in seen


def test_the_same_study_gives_the_same_report(tmp_path: Path, report: str) -> None:
    again = build(write(tmp_path / "server"), out=tmp_path / "again.html").read_text(encoding="utf-8")
    assert again == report


@pytest.mark.parametrize(
    "name", ["plan.json", "journal.jsonl", "enrolment.json", "audit/axes.json", "audit/manifest.json"]
)
def test_an_unfinished_study_gives_one_clear_error_and_no_file(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "server")
    (root / name).unlink()
    with pytest.raises(ArtefactError):
        build(root, out=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_each_site_has_its_verdict_with_the_numbers_it_rests_on(report: str) -> None:
    text = " ".join(words(report).split())
    assert (
        "Should a site augment? north: augment; south: do not augment, the gain is within noise."
        " (Transformer, threshold: tuned on validation patients.)"
    ) in text
    north, south = (
        next(row for row in rows if row[0] == site)
        for site in ("north", "south")
        for rows in [verdict_rows(report, "Transformer, threshold: tuned on validation patients")]
    )
    assert north[1:] == [
        "Augment",
        "+0.123 at least 0.046 of white and black",
        "−0.004 at least −0.012",
        "−0.210 at most −0.031",
    ]
    assert south[1:3] == [
        "Do not augment: the gain is within noise",
        "INSUFFICIENT of white and black",
    ]
    at_half = verdict_rows(report, "Transformer, threshold: score of at least 0.5")
    assert [row[-1] for row in at_half] == ["INSUFFICIENT", "INSUFFICIENT"]


def test_a_site_where_one_group_alone_could_be_judged_says_so(tmp_path: Path) -> None:
    audit = {"seeds": 2, "bootstrap_replicates": 20, "minimum_positives": 30, "minimum_cell": 11}
    root = write(tmp_path / "server", plan=make_plan(audit=audit))
    text = build(root, out=tmp_path / "report.html").read_text(encoding="utf-8")
    north, south = verdict_rows(text, "Transformer, threshold: tuned on validation patients")
    assert north[2].endswith("of white and black")
    assert south[2] == "INSUFFICIENT fewer than two groups can be judged"


def test_a_worst_tpr_that_falls_is_said_to_fall(tmp_path: Path) -> None:
    root = write(tmp_path / "server")
    told = root / "audit" / "changes.json"
    fallen = told.read_text(encoding="utf-8").replace("0.1234", "-0.1234").replace("0.0456", "-0.2")
    told.write_text(fallen.replace('"high": 0.2', '"high": -0.05'), encoding="utf-8")
    text = build(root, out=tmp_path / "report.html").read_text(encoding="utf-8")
    north, _ = verdict_rows(text, "Transformer, threshold: tuned on validation patients")
    assert north[1] == "Do not augment: worst TPR falls"
    assert "north: do not augment, worst TPR falls;" in " ".join(words(text).split())


def test_a_study_without_what_changed_has_a_report_without_verdicts(tmp_path: Path) -> None:
    text = build(write(tmp_path / "server", told=False), out=tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Should a site augment?" not in text.replace("|log DI|; should a site augment?", "")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "server")
    (root / "enrolment.json").write_text('{"sites": {}}', encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"enrolment\.json"):
        build(root, out=tmp_path / "report.html")


def test_the_page_names_the_sites_without_which_the_study_would_have_stopped(tmp_path: Path) -> None:
    first, *others = sorted(COHORTS)
    for required, told in (((), f"1 of {1 + len(others)}"), ((first,), f"1 of {1 + len(others)}, not without {first}")):
        study = read_finished(write(tmp_path / f"server{len(required)}", plan=make_plan(required=required)))
        assert {fact.name: fact.value for fact in page(study).facts}["Quorum"] == told


def test_a_page_shows_what_it_is_given(tmp_path: Path) -> None:
    content = page(read_finished(write(tmp_path / "server")))
    assert "<h1>other</h1>" in render(replace(content, title="other"))
