"""Every fault of a data folder ends in one clear error before anything is written."""

import gzip

import pytest

from fairsynth.errors import ConfigError, ExtractionError
from fairsynth.extraction import check_tables, extract

# What a message may never hold: identifiers and cells of the tiny tables.
SECRETS = (
    "7001",
    "7002",
    "7003",
    "7004",
    "2150-01",
    "Heparin",
    "not a date",
    "99999",
    "41071",
    "1.4",
    "1860",
    "EMERGENCY",
)


@pytest.fixture
def refusal(make_data, mimic3, tmp_path):
    """The text of the error for changed tables; nothing may have been written, and no cell may be in it."""

    def refuse(**changed):
        data = make_data(**changed)
        before = sorted(path.name for path in data.iterdir())
        root = tmp_path / "site"
        with pytest.raises(ExtractionError) as caught:
            extract(data, config=mimic3, root=root)
        assert not root.exists() or list(root.iterdir()) == []
        assert sorted(path.name for path in data.iterdir()) == before
        text = str(caught.value)
        assert not [secret for secret in SECRETS if secret in text.replace(str(tmp_path), "")]
        assert caught.value.exit_code == 2
        return text

    return refuse


def changed(table, old, new, tables):
    assert old in tables[table]
    return {table: tables[table].replace(old, new)}


def test_a_missing_file_is_named_with_what_was_found(refusal):
    text = refusal(DIAGNOSES_ICD=None)
    assert "missing file" in text
    assert "DIAGNOSES_ICD.csv" in text
    assert "ADMISSIONS.csv" in text  # among those found


def test_a_missing_folder_is_named(tmp_path, mimic3):
    with pytest.raises(ExtractionError, match=r"missing folder.*nowhere"):
        check_tables(tmp_path / "nowhere", config=mimic3)


def test_a_missing_column_is_named_with_the_header(refusal, tiny_tables):
    text = refusal(**changed("ADMISSIONS", ",ETHNICITY,", ",RACE,", tiny_tables))
    assert "missing column ETHNICITY" in text
    assert "RACE" in text


def test_a_column_that_occurs_twice_is_refused(refusal, tiny_tables):
    assert "column DRUG twice" in refusal(
        PRESCRIPTIONS=tiny_tables["PRESCRIPTIONS"].replace("STARTDATE,", "STARTDATE,drug,").replace(":00,", ":00,x,")
    )


@pytest.mark.parametrize("table", ["PATIENTS", "ADMISSIONS", "PRESCRIPTIONS", "LABEVENTS"])
def test_a_table_without_its_header_is_refused_without_showing_its_first_row(refusal, tiny_tables, table):
    text = refusal(**{table: tiny_tables[table].split("\n", 1)[1]})
    assert "no header" in text
    assert f"{table}.csv:1" in text


def test_a_blank_line_before_the_header_is_refused(refusal, tiny_tables):
    assert "no header" in refusal(LABEVENTS="\n" + tiny_tables["LABEVENTS"])


def test_an_empty_table_is_refused(refusal):
    assert "empty table" in refusal(DIAGNOSES_ICD="SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE\n")


def test_a_file_without_a_header_is_refused(refusal):
    assert "empty table" in refusal(PRESCRIPTIONS="")


def test_a_table_that_may_be_empty_is_accepted(make_data, mimic3):
    data = make_data(PROCEDURES_ICD="SUBJECT_ID,HADM_ID,ICD9_CODE\n")
    report = check_tables(data, config=mimic3)
    assert {table.table: table.rows for table in report.tables}["PROCEDURES_ICD"] == 0


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_a_wrong_delimiter_is_named(refusal, tiny_tables, delimiter, word):
    assert f"separated by {word}" in refusal(ADMISSIONS=tiny_tables["ADMISSIONS"].replace(",", delimiter))


def test_a_date_that_does_not_parse_is_named_by_column_and_line(refusal, tiny_tables):
    text = refusal(**changed("ADMISSIONS", "2151-06-10 20:15:00", "not a date", tiny_tables))
    assert "dates that do not parse" in text
    assert "ADMITTIME  line 3  (1 in all)" in text


def test_the_line_of_a_bad_cell_counts_lines_inside_quotes_and_blank_lines(refusal, tiny_tables):
    text = tiny_tables["PRESCRIPTIONS"] + '101,7001,2150-01-02 00:00:00,"two\nlines"\n\n101,7001,99999,Aspirin\n'
    assert "STARTDATE  line 6  (1 in all)" in refusal(PRESCRIPTIONS=text)


def test_only_the_first_lines_of_many_bad_cells_are_named(refusal, tiny_tables):
    text = tiny_tables["PRESCRIPTIONS"] + "101,7001,not a date,Aspirin\n" * 20
    assert "lines 3, 4, 5, 6, 7, ...  (20 in all)" in refusal(PRESCRIPTIONS=text)


def test_a_day_that_does_not_exist_is_refused(refusal, tiny_tables):
    assert "DOB  line 2" in refusal(**changed("PATIENTS", "2100-03-05", "2100-02-30", tiny_tables))


def test_a_visit_without_a_start_is_refused(refusal, tiny_tables):
    text = refusal(**changed("ADMISSIONS", "2151-06-10 20:15:00", "", tiny_tables))
    assert "visits without a time" in text
    assert "ADMITTIME  line 3" in text


@pytest.mark.parametrize("bad", ["x", "1e99", "nan", "inf", "1;2"])
def test_a_number_that_is_no_finite_number_is_refused(refusal, tiny_tables, bad):
    assert "VALUENUM  line 5" in refusal(**changed("LABEVENTS", ",240,", f",{bad},", tiny_tables))


@pytest.mark.parametrize("bad", ["", "A7", "102.0", "9223372036854775808"])
def test_a_patient_identifier_that_is_no_whole_number_is_refused(refusal, tiny_tables, bad):
    text = refusal(**changed("LABEVENTS", "102,", f"{bad},", tiny_tables))
    assert "identifiers missing or not numbers" in text
    assert "SUBJECT_ID  line 5" in text


def test_a_visit_identifier_may_be_missing_in_labs_but_not_in_admissions(refusal, tiny_tables):
    text = refusal(**changed("ADMISSIONS", ",7004,", ",,", tiny_tables))
    assert "HADM_ID  line 5" in text


def test_a_patient_listed_twice_is_refused(refusal, tiny_tables):
    text = refusal(PATIENTS=tiny_tables["PATIENTS"] + "102,M,2090-07-01 00:00:00,\n")
    assert "duplicate identifiers" in text
    assert "PATIENTS.csv  SUBJECT_ID  lines 3, 5" in text


def test_a_visit_listed_twice_is_refused_even_with_another_patient(refusal, tiny_tables):
    text = refusal(**changed("ADMISSIONS", "103,7004", "103,7003", tiny_tables))
    assert "duplicate identifiers" in text
    assert "ADMISSIONS.csv  HADM_ID  lines 4, 5" in text


def test_a_visit_of_an_unknown_patient_is_refused(refusal, tiny_tables):
    text = refusal(**changed("ADMISSIONS", "103,7004", "999,7004", tiny_tables))
    assert "visits of unknown patients" in text
    assert "SUBJECT_ID  line 5" in text


def test_more_rows_of_unknown_visits_than_the_site_allows_are_refused(refusal, tiny_tables):
    text = refusal(**changed("DIAGNOSES_ICD", "101,7002", "101,7003", tiny_tables))  # the visit of another patient
    assert "unknown patient or visit: 1 of" in text
    assert "maximum_dropped_share" in text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"SUBJECT_ID,HADM_ID,ICD9_CODE\n101,7001,\xe9\n", "not UTF-8"),
        (b"SUBJECT_ID,HADM_ID,ICD9_CODE\n101,7001,12\x0034\n", "not a text file"),
        ("SUBJECT_ID,HADM_ID,ICD9_CODE\n101,7001,3961\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_refused(refusal, content, what):
    text = refusal(PROCEDURES_ICD=content)
    assert what in text
    assert "PROCEDURES_ICD.csv" in text


@pytest.mark.parametrize("row", ["101,7001\n", "101,7001,3961,9\n"])
def test_a_row_of_another_length_is_named_by_its_line(refusal, row):
    text = refusal(PROCEDURES_ICD=f"SUBJECT_ID,HADM_ID,ICD9_CODE\n103,7004,3961\n{row}")
    assert "rows of another length" in text
    assert "PROCEDURES_ICD.csv  line 3" in text


def test_a_quote_that_never_closes_is_refused(refusal):
    text = refusal(PROCEDURES_ICD='SUBJECT_ID,HADM_ID,ICD9_CODE\n103,7004,3961\n101,7001,"3961\n')
    assert "damaged file" in text
    assert "PROCEDURES_ICD.csv  near line 3" in text


def test_a_truncated_archive_is_refused(make_data, mimic3):
    data = make_data(LABEVENTS=None)
    whole = gzip.compress(
        b"SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUENUM,VALUEUOM\n" + b"101,7001,1,2150-01-01,1,x\n" * 999
    )
    (data / "LABEVENTS.csv.gz").write_bytes(whole[:-20])
    with pytest.raises(ExtractionError, match="damaged file"):
        check_tables(data, config=mimic3)


def test_an_archive_with_a_changed_byte_is_refused(make_data, mimic3, tiny_tables):
    data = make_data(LABEVENTS=None)
    whole = bytearray(gzip.compress((tiny_tables["LABEVENTS"] * 50).encode()))
    whole[len(whole) // 2] ^= 0xFF
    (data / "LABEVENTS.csv.gz").write_bytes(bytes(whole))
    with pytest.raises(ExtractionError, match=r"damaged file|not UTF-8|not a text file|rows of another length"):
        check_tables(data, config=mimic3)


def test_a_file_that_is_no_archive_is_refused(make_data, mimic3):
    data = make_data()
    (data / "LABEVENTS.csv").rename(data / "LABEVENTS.csv.gz")
    with pytest.raises(ExtractionError, match="damaged file"):
        check_tables(data, config=mimic3)


def test_a_file_that_is_no_parquet_is_refused(make_data, mimic3):
    data = make_data()
    (data / "LABEVENTS.csv").rename(data / "LABEVENTS.parquet")
    with pytest.raises(ExtractionError, match="damaged file"):
        check_tables(data, config=mimic3)


def test_a_table_that_is_there_twice_is_refused(make_data, mimic3):
    data = make_data()
    (data / "labevents.csv.gz").write_bytes(gzip.compress((data / "LABEVENTS.csv").read_bytes()))
    with pytest.raises(ExtractionError, match="found more than once"):
        check_tables(data, config=mimic3)


def test_all_problems_of_a_folder_are_told_at_once(refusal, tiny_tables):
    text = refusal(
        D_LABITEMS=None,
        PROCEDURES_ICD="SUBJECT_ID,ICD9_CODE\n103,3961\n",
        PATIENTS=tiny_tables["PATIENTS"] + "102,M,2090-07-01 00:00:00,\n",
        **changed("PRESCRIPTIONS", "2150-01-01 00:00:00", "not a date", tiny_tables),
    )
    for fault in ("missing file", "missing column HADM_ID", "duplicate identifiers", "dates that do not parse"):
        assert fault in text


def test_a_misspelt_key_of_the_rules_is_named_with_its_line(make_data, mimic3, tmp_path):
    config = tmp_path / "config"
    config.mkdir()
    (config / "site.yaml").write_bytes((mimic3 / "site.yaml").read_bytes())
    text = (mimic3 / "rules.yaml").read_text(encoding="utf-8").replace("attach_by_time", "attach_by_tyme")
    (config / "rules.yaml").write_text(text, encoding="utf-8")
    line = 1 + text[: text.index("attach_by_tyme")].count("\n")
    with pytest.raises(ConfigError, match=rf"rules.yaml:{line}(.|\n)*did you mean 'attach_by_time'"):
        extract(make_data(), config=config, root=tmp_path / "site")


def test_an_unreadable_disk_leaves_no_half_written_events(make_data, mimic3, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("fairsynth.extraction.checks.describe", fail)
    with pytest.raises(OSError, match="disk full"):
        extract(make_data(), config=mimic3, root=tmp_path / "site")
    assert list((tmp_path / "site").iterdir()) == []
