"""What the first cells of a column look like."""

from datetime import datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairsynth.onboarding import words
from fairsynth.onboarding.columns import Column, date_formats, month_or_day


def column(name: str, *cells: str) -> Column:
    return Column(name=name, rows=len(cells), cells=pl.Series(cells, dtype=pl.String))


@pytest.mark.parametrize(
    ("cells", "formats"),
    [
        (("2021-05-01 10:00:00", "2021-05-02 11:30:00"), ("%Y-%m-%d %H:%M:%S",)),
        (("2021-05-01", "2021-05-02"), ("%Y-%m-%d",)),
        (("01/05/2021 10:00", "28/05/2021 11:30"), ("%d/%m/%Y %H:%M",)),
        (("31.12.2020", "01.01.2021"), ("%d.%m.%Y",)),
        (("2021-05-01T10:00:00", "2021-05-02T11:30:00"), ("%Y-%m-%dT%H:%M:%S",)),
        (("12.5", "13.0"), ()),
        (("20210501", "20210502"), ()),  # a number, unless the name says that it is a time
        (("100001", "100002"), ()),
    ],
)
def test_a_time_is_told_by_its_cells(cells, formats):
    assert column("CELL", *cells).formats == formats


def test_digits_are_a_time_where_the_name_says_so():
    assert column("TAKEN_DATE", "20210501", "20211231").formats == ("%Y%m%d",)


def test_dates_and_times_in_one_column_need_two_formats():
    mixed = column("X", *("2021-05-01 10:00:00",) * 3, "2021-05-02")
    assert set(mixed.formats) == {"%Y-%m-%d %H:%M:%S", "%Y-%m-%d"}


def test_one_cell_decides_whether_the_day_comes_first_for_all_columns():
    doubtful, clear = column("A", "03/04/2021", "05/06/2021"), column("B", "03/04/2021 10:00", "28/02/2021 10:00")
    assert month_or_day([doubtful]) == ("day", "month")
    assert month_or_day([doubtful, clear]) == ("day",)
    assert month_or_day([doubtful, column("C", "02/28/2021")]) == ("month",)
    assert date_formats([doubtful, clear], first="day") == ("%d/%m/%Y %H:%M", "%d/%m/%Y")
    assert date_formats([doubtful], first="month") == ("%m/%d/%Y",)


@settings(max_examples=25)
@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), min_size=20, max_size=60, unique=True))
def test_the_formats_that_are_found_read_the_cells_back(times):
    cells = [time.strftime("%d/%m/%Y %H:%M") for time in times]
    found = column("X", *cells)
    (form,) = date_formats([found], first=month_or_day([found])[0])
    read = pl.Series(cells).str.to_datetime(form, time_unit="us", strict=False)
    if form.startswith("%d"):
        assert read.to_list() == [time.replace(second=0, microsecond=0) for time in times]


@pytest.mark.parametrize(
    ("name", "plain"), [("PatientID", "patient_id"), ("PATIENT ID", "patient_id"), ("Ethnic-Origin", "ethnic_origin")]
)
def test_names_are_compared_without_their_spelling(name, plain):
    assert words.plain(name) == plain


def test_identifiers_are_neither_times_nor_fractions_nor_sentences():
    assert column("A", "P-1", "P-2").is_identifier
    assert column("A", "17", "18").is_identifier
    assert not column("A", "1.5", "2.5").is_identifier
    assert not column("A", "a b", "c d").is_identifier
    assert not column("ROW_ID", "1", "2").is_identifier
