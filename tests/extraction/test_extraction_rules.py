"""Rules read rows, and lead back from codes to rows."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fairsynth.errors import ConfigError
from fairsynth.extraction.rules import Rules, TableRule, read_rules
from fairsynth.extraction.templates import Template

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)

PEOPLE = {"file": "PEOPLE", "columns": ["SUBJECT_ID", "DOB"], "visit": None, "events": [{"code": "B", "time": "DOB"}]}
STAYS = {
    "file": "STAYS",
    "columns": ["SUBJECT_ID", "HADM_ID", "ADMITTIME", "DISCHTIME", "KIND"],
    "events": [{"code": "ADMISSION//{KIND}", "time": "ADMITTIME"}],
}


def rules(*tables, **other):
    return Rules.model_validate(
        {"schema": "fairsynth.rules/1", "patients": "PEOPLE", "visits": {"table": "STAYS"}, "tables": tables, **other}
    )


@given(cell=TEXT)
def test_a_template_returns_the_cell_that_made_the_code(cell):
    template = Template.parse("DRUG//{DRUG}")
    assert template.invert(f"DRUG//{cell}") == {"DRUG": cell}


@pytest.mark.parametrize("code", ["DRUG//", "DRUG", "LAB//1", ""])
def test_a_template_knows_codes_that_it_did_not_make(code):
    assert Template.parse("DRUG//{DRUG}").invert(code) is None


@pytest.mark.parametrize(
    "text", ["{A}", "A//{B}//C", "A//{B}{C}", "A//{b}", "A//{B", "", "A//{__import__}", "A//{B.c}"]
)
def test_a_template_that_could_not_be_inverted_is_refused(text):
    with pytest.raises(ValueError, match=r"literal"):
        Template.parse(text)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("DIAG//{A}", "DIAG//ICD9//{A}", True),
        ("DEATH//HOSPITAL", "DEATH//{A}", True),
        ("DEATH//HOSPITAL", "DEATH//HOSPITAL", True),
        ("DEATH//HOSPITAL", "DEATH//HOSPICE", False),
        ("DIAG//{A}", "DIAGNOSIS//{A}", False),
        ("LAB//{A}", "DRUG//{A}", False),
    ],
)
def test_two_rules_that_could_make_the_same_code_are_refused(first, second, overlap):
    assert Template.parse(first).overlaps(Template.parse(second)) is overlap
    assert Template.parse(second).overlaps(Template.parse(first)) is overlap
    columns = ["SUBJECT_ID", "HADM_ID", "A", "T"]
    events = [{"code": first, "time": "T"}, {"code": second, "time": "T"}]
    table = {"file": "X", "columns": columns, "events": events}
    if overlap:
        with pytest.raises(ValidationError, match="could both make the same code"):
            rules(PEOPLE, STAYS, table)
    else:
        rules(PEOPLE, STAYS, table)


@pytest.mark.parametrize("source", ["mimic3", "pic"])
def test_every_code_of_the_shipped_rules_leads_back_to_its_table(source, request):
    found = read_rules(request.getfixturevalue(source))
    for table in found.tables:
        for event in table.events:
            column = event.template.column
            code = event.template.literal + ("" if column is None else "some // cell")
            assert found.table_of(code) is table
            expected = {**event.where, **({} if column is None else {column: "some // cell"})}
            assert table.parse_code(code) == expected


def test_the_cells_of_a_lab_result_fill_its_row(mimic3):
    labs = read_rules(mimic3).table("LABEVENTS")
    cells = labs.cells("LAB//50912", time="2150-01-01 09:00:00", value="1.4", unit="mg/dL")
    assert cells == {"ITEMID": "50912", "CHARTTIME": "2150-01-01 09:00:00", "VALUENUM": "1.4", "VALUEUOM": "mg/dL"}
    assert labs.cells("DRUG//Heparin") is None


def test_the_cells_of_a_death_say_the_flag_and_the_time(mimic3):
    admissions = read_rules(mimic3).table("ADMISSIONS")
    assert admissions.cells("DEATH//HOSPITAL", time="T") == {"DEATHTIME": "T", "HOSPITAL_EXPIRE_FLAG": "1"}


def test_a_dictionary_row_is_made_from_its_code_and_parents(pic):
    dictionary = read_rules(pic).dictionaries[0]
    cells = dictionary.cells("DIAG//ICD10CN//K56.200", description="Volvulus", parents=["ICD10/K56.2"])
    assert cells == {"ICD10_CODE_CN": "K56.200", "ICD10_CODE": "K56.2", "TITLE": "Volvulus"}
    assert dictionary.cells("LAB//1") is None


def test_times_are_written_as_the_source_writes_them(mimic3):
    assert read_rules(mimic3).write_time(datetime(2150, 1, 2, 3, 4, 5)) == "2150-01-02 03:04:05"


MIMIC_LABS = "ROW_ID SUBJECT_ID HADM_ID ITEMID CHARTTIME VALUE VALUENUM VALUEUOM FLAG"


def test_the_columns_of_a_table_are_those_of_its_file_in_order(mimic3):
    assert " ".join(read_rules(mimic3).table("LABEVENTS").columns) == MIMIC_LABS


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"events": [{"code": "A//{NOWHERE}", "time": "DOB"}]}, "NOWHERE is not among `columns`"),
        ({"aliases": {"SEX": ["GENDER"]}}, "SEX is not among `columns`"),
        ({"write": {"copies": {"DOB": "DOD"}}}, "DOD is not among `columns`"),
        ({"columns": ["SUBJECT_ID", "DOB", "DOB"]}, "listed twice"),
        ({"events": [{"code": "B", "at": "start"}]}, "need a `visit` column"),
        ({"subject": "WHO"}, "WHO is not among `columns`"),
    ],
)
def test_a_table_rule_that_does_not_hold_together_is_refused(table, message):
    with pytest.raises(ValidationError, match=message):
        TableRule.model_validate(PEOPLE | table)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"patients": "NOBODY"}, "NOBODY is not among `tables`"),
        ({"visits": {"table": "PEOPLE"}}, "needs a `visit` column"),
        ({"visits": {"table": "STAYS", "start": "BEGIN"}}, "BEGIN is not among `columns`"),
        ({"dictionaries": [{"file": "STAYS", "columns": ["A"], "code": "X//{A}"}]}, "named twice"),
    ],
)
def test_rules_that_do_not_fit_together_are_refused(other, message):
    with pytest.raises(ValidationError, match=message):
        rules(PEOPLE, STAYS, **other)


def test_a_rules_file_of_another_schema_is_refused(mimic3, tmp_path):
    (tmp_path / "site.yaml").write_bytes((mimic3 / "site.yaml").read_bytes())
    text = (mimic3 / "rules.yaml").read_text(encoding="utf-8").replace("fairsynth.rules/1", "fairsynth.rules/9")
    (tmp_path / "rules.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rules.yaml:2  schema"):
        read_rules(tmp_path)
