"""Which codes give the outcome away, and which are only ordinary severe diagnoses."""

import numpy as np
import polars as pl
import pytest
from quality_stories import at, frame, person

from fairsynth.quality.leaks import Judge, carriers, describe_leaks, leak_findings

MIMIC = Judge(total=38_597, positives=4_400, tests=6_000)  # adults of MIMIC-III, about


@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [
        (4_400, 4_400, "gives away"),  # DISCHARGE//DEAD/EXPIRED
        (34_197, 0, "gives away"),  # a code that all survivors have, and nobody else
        (120, 118, "gives away"),  # brain death
        (1_300, 780, "suspect"),  # cardiac arrest, 427.5
        (900, 680, "suspect"),  # palliative care, V66.7
        (2_300, 870, None),  # septic shock
        (500, 230, None),  # disseminated intravascular coagulation
        (20_000, 2_600, None),  # hypertension
        (12, 12, "suspect"),  # too few to be sure
        (11, 8, None),  # chance among thousands of codes
    ],
)
def test_the_rule_tells_what_follows_an_outcome_from_what_leads_to_it(n, k, expected):
    assert MIMIC.strength(n, k) == expected


def test_where_many_die_a_severe_diagnosis_in_few_patients_is_no_leak():
    demo = Judge(total=100, positives=40, tests=392)
    assert demo.strength(11, 9) is None
    assert demo.strength(17, 12) is None
    assert demo.strength(40, 40) == "gives away"


def test_among_two_thousand_codes_without_any_tie_none_stands_out():
    rng = np.random.default_rng(5)
    judge = Judge(total=1_000, positives=120, tests=2_000)
    for n in rng.integers(11, 990, size=2_000):
        assert judge.strength(int(n), int(rng.hypergeometric(120, 880, n))) is None


TOKENS = {"DX//CCS//107", "LAB//32693-4//critical_high"}


def placed(*codes: str) -> pl.DataFrame:
    enters = [code.split("//")[0] in ("DIAG", "DRUG", "UNIT") for code in codes]
    return pl.DataFrame({"code": codes, "description": ["words"] * len(codes), "enters": enters})


def leaks(carried: dict[str, range], *, exclude: tuple[str, ...] = ()):
    """400 patients, of whom those below 60 have the outcome."""
    rows = [(subject, code) for code, subjects in carried.items() for subject in subjects]
    labels = pl.DataFrame({"subject_id": range(400), "label": [int(subject < 60) for subject in range(400)]})
    return describe_leaks(
        pl.DataFrame(rows, schema=["subject_id", "code"], orient="row"),
        labels=labels,
        placed=placed(*(code for code in carried if code not in TOKENS)),
        exclude=exclude,
        minimum=11,
    )


def test_a_code_is_told_with_what_becomes_of_it():
    carried = {
        "DISCHARGE//DEAD": range(60),
        "DIAG//ICD9CM//4275": range(40),
        "DX//CCS//107": range(40),
        "DIAG//ICD9CM//4019": range(20, 300),
        "DIAG//ICD9CM//V667": range(5),
    }
    found = leaks(carried, exclude=("DIAG//ICD9CM//4275", "DIAG//ICD9CM//798"))
    assert {(code.code, code.status) for code in found.leaky} == {
        ("DISCHARGE//DEAD", "never a token"),
        ("DIAG//ICD9CM//4275", "left out by exclude_codes"),
        ("DX//CCS//107", "enters records"),
    }
    assert (found.codes, found.too_rare) == (4, 1)
    assert found.exclusions_without_code == ("DIAG//ICD9CM//798",)
    levels = [(finding.level, finding.where) for finding in leak_findings(found)]
    assert levels[0] == ("error", "DX//CCS//107")
    assert all(level == "note" for level, _ in levels[1:])


def test_the_few_survivors_who_carry_a_code_stay_hidden():
    (code,) = leaks({"DIAG//ICD9CM//4275": range(3, 63)}).leaky
    assert (code.patients, code.positives) == (60, "≥50")
    assert (code.ppv, code.share_of_positives, code.auroc, code.lift) == (None,) * 4


def test_a_laboratory_value_is_known_when_it_is_measured():
    assert leaks({"LAB//32693-4//critical_high": range(20, 90)}).leaky == ()
    assert [code.strength for code in leaks({"DIAG//ICD9CM//4275": range(20, 90)}).leaky] == ["suspect"]
    sure = leaks({"LAB//32693-4//critical_high": range(60)})
    assert [code.strength for code in sure.leaky] == ["gives away"]
    assert [finding.level for finding in leak_findings(sure)] == ["warning"]


def test_a_code_counts_when_it_is_known_or_coded_for_the_open_visit():
    rows = [
        *person(1),
        (1, at(1), "DRUG//early", None, 10, None),
        (1, at(3), "DRUG//late", None, 10, None),
        (1, at(5), "DIAG//ICD9CM//4275", None, 10, None),
        (1, at(1), "DRUG//elsewhere", None, 11, None),
    ]
    last = pl.DataFrame({"subject_id": [1], "visit_id": [10], "predicted_at": [at(2)], "open": [True]})
    closed = last.with_columns(open=pl.lit(value=False))
    seen = set(carriers([frame(rows)], last=last)["code"])
    assert seen == {"ADMISSION//EMERGENCY", "ETHNICITY//WHITE", "DISCHARGE//HOME", "DRUG//early", "DIAG//ICD9CM//4275"}
    assert set(carriers([frame(rows)], last=closed)["code"]) == seen - {"DIAG//ICD9CM//4275"}
