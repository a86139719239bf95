"""What the shared vocabulary has a place for, and what may be named of the rest."""

import polars as pl
from quality_stories import at, frame, person

from fairsynth.config import LevelsConfig
from fairsynth.quality.codes import describe_kinds, kind_findings, place
from fairsynth.quality.events import INVENTORY, inventory
from fairsynth.quality.missing import describe_missing, missing_findings

CODES = pl.DataFrame(
    {
        "code": ["LAB//1", "LAB//2", "DIAG//ICD9CM//4280"],
        "description": ["Creatinine", "Colour", "Heart failure"],
        "parent_codes": [["LOINC/2160-0"], [], []],
    }
)


def counted(*rows: tuple[str, str | None, int, int]) -> pl.DataFrame:
    """(code, unit, events, patients)."""
    columns = ("code", "unit", "events", "patients")
    named = pl.DataFrame(rows, schema={name: INVENTORY[name] for name in columns}, orient="row")
    return named.with_columns(numbers=pl.lit(0, dtype=pl.Int64))


def kinds(*rows: tuple[str, str | None, int, int]):
    return {
        one.kind: one for one in describe_kinds(place(counted(*rows), codes=CODES, levels=LevelsConfig()), minimum=11)
    }


def test_a_laboratory_item_needs_a_loinc_code_and_a_known_unit():
    lab = kinds(("LAB//1", "mg/dL", 70, 40), ("LAB//1", "furlong", 20, 15), ("LAB//2", None, 10, 12))["LAB"]
    assert (lab.events, lab.mapped_events, lab.mapped_share) == (100, 70, 0.7)
    assert [(code.code, code.unit, code.patients) for code in lab.unmapped] == [
        ("LAB//1", "furlong", 15),
        ("LAB//2", None, 12),
    ]


def test_a_diagnosis_that_keeps_its_own_code_is_not_mapped():
    found = kinds(("DIAG//ICD9CM//4280", None, 80, 70), ("DIAG//ICD9CM//XYZ", None, 20, 15))["DIAG"]
    assert found.mapped_share == 0.8
    assert [code.code for code in found.unmapped] == ["DIAG//ICD9CM//XYZ"]


def test_codes_of_kinds_without_tokens_stay_and_enter_nothing():
    rows = [("DISCHARGE//HOME", None, 5, 5), ("UNIT//MICU", None, 5, 5), ("LAB//2", None, 5, 5)]
    found = place(counted(*rows), codes=CODES, levels=LevelsConfig())
    assert dict(found.select("code", "enters").iter_rows()) == {
        "DISCHARGE//HOME": False,
        "UNIT//MICU": True,
        "LAB//2": False,
    }


def test_a_code_that_few_carry_is_counted_and_not_named():
    found = kinds(("DRUG//()", None, 500, 10), ("DRUG//[]", None, 20, 11))["DRUG"]
    assert [code.code for code in found.unmapped] == ["DRUG//[]"]
    assert found.further_unmapped_codes == 1


def test_the_verdict_tells_absent_kinds_and_kinds_of_which_little_is_mapped():
    found = kinds(("LAB//2", None, 30, 20), ("DIAG//ICD9CM//4280", None, 80, 70))
    told = {(finding.level, finding.where.split("  ")[0]) for finding in kind_findings(tuple(found.values()))}
    assert told == {("note", "codes PROC//..."), ("note", "codes DRUG//..."), ("warning", "codes LAB//...")}


def test_counts_of_people_add_up_over_shards():
    one = frame([*person(1), (1, at(1), "LAB//1", 1.0, 10, "mg/dL"), (1, at(2), "LAB//1", None, 10, "mg/dL")])
    two = frame([*person(2), (2, at(1), "LAB//1", 1.0, 20, "mg/dL")])
    row = inventory([one, two]).filter(code="LAB//1").row(0, named=True)
    assert row == {"code": "LAB//1", "unit": "mg/dL", "events": 3, "numbers": 2, "patients": 2}


def test_what_is_missing_is_counted_among_all_patients_and_visits_of_the_source():
    whole = [*person(1), (1, at(1), "LAB//1", None, 10, "mg/dL"), (1, at(1), "DRUG//a", None, 10, None)]
    bare = [row for row in person(2) if row[2] not in ("MEDS_BIRTH", "DISCHARGE//HOME")]
    found = describe_missing([frame(whole), frame(bare)], attribute="ETHNICITY", patients=3, visits=3, minimum=1)
    lacking = {name: lack.count for name, lack in found.visits_without.items()}
    assert lacking == {"diagnosis": 3, "drug": 2, "laboratory value": 2, "procedure": 3}
    assert (found.visits_without_admission.count, found.visits_without_discharge.count) == (1, 2)
    assert {name: lack.count for name, lack in found.patients_without.items()} == {"sex": 1, "birth": 2, "ethnicity": 1}
    assert found.values_without_number.count == 1
    told = {finding.what.split(":")[0]: finding.level for finding in missing_findings(found)}
    assert told["patients without birth"] == "warning"


def test_a_source_without_any_sex_is_an_error():
    rows = [row for row in person(1) if not row[2].startswith("GENDER")]
    found = describe_missing([frame(rows)], attribute="ETHNICITY", patients=1, visits=1, minimum=1)
    assert next(finding.level for finding in missing_findings(found)) == "error"
