"""Laws of bins: one for every value, in order, edges on the side that is documented, the same in every unit; what a
token is decoded to is what is binned there."""

from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairsynth.visits.bins import AGE_BINS, DAYS_PER_YEAR, GAP_BINS, LOS_BINS, SHIFTED_YEARS, age_days, binned
from fairsynth.visits.decoder import decoder
from fairsynth.visits.labs import BINS, HOW_TO_BIN, Lab, bin_index, conversions, converted, labs, plausible

KINDS = {"AGE": AGE_BINS, "GAP": GAP_BINS, "LOS": LOS_BINS}
LABS = [(lab, unit) for lab in labs() for unit in lab.units]
ROUNDING = 5.1e-6  # of values to 6 significant digits, and of events to float32


# --- days ------------------------------------------------------------------------------------------------------------

EDGES = sorted({edge for bins in KINDS.values() for ends in bins.values() for edge in ends})
DAYS = st.floats(-100, 60_000) | st.sampled_from([near for edge in EDGES for near in (edge, np.nextafter(edge, -1))])


def bins_of(days: list[float | None], kind: str) -> list[str | None]:
    frame = pl.DataFrame({"days": days}, schema={"days": pl.Float64})
    return frame.select(binned(pl.col("days"), KINDS[kind])).to_series().to_list()


@pytest.mark.parametrize("kind", KINDS)
def test_bins_of_days_follow_one_another_without_a_gap(kind):
    ends = list(KINDS[kind].values())
    assert ends[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(ends))
    assert all(low < high for low, high in ends)


@given(kind=st.sampled_from(sorted(KINDS)), days=DAYS)
def test_days_are_in_the_one_bin_whose_first_day_they_have_reached_and_last_day_not(kind, days):
    bins = KINDS[kind]
    holding = [name for name, (low, high) in bins.items() if low <= days < high]
    nearest = next(iter(bins)) if days < 0 else list(bins)[-1]
    assert bins_of([days], kind) == (holding or [nearest])
    assert len(holding) <= 1


@given(kind=st.sampled_from(sorted(KINDS)), days=st.lists(DAYS, min_size=2, max_size=20))
def test_more_days_are_never_in_an_earlier_bin(kind, days):
    order = list(KINDS[kind])
    places = [order.index(name) for name in bins_of(sorted(days), kind)]
    assert places == sorted(places)


def test_no_days_have_no_bin():
    assert bins_of([None], "AGE") == [None]


BIRTHS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))


@given(birth=BIRTHS, seconds=st.integers(-(10**9), 12 * 10**9))
def test_an_age_is_never_negative_and_90_where_the_birth_was_shifted(birth, seconds):
    frame = pl.DataFrame({"birth": [birth], "at": [birth + timedelta(seconds=seconds)]})
    days = frame.select(age_days(pl.col("birth"), pl.col("at"))).item()
    if seconds <= 0:
        assert days == 0
    elif seconds / 86_400 > SHIFTED_YEARS * DAYS_PER_YEAR:
        assert bins_of([days], "AGE") == ["90+"]
    else:
        assert days == pytest.approx(seconds / 86_400)


# --- laboratory values -----------------------------------------------------------------------------------------------


def looked_at(lab: Lab, unit: str, values: list[float]) -> pl.DataFrame:
    """value in the conventional unit, bin (null: not plausible) of values as events store them."""
    table = conversions(pl.DataFrame({"code": ["LAB//1"], "unit": [unit], "loinc": [lab.loinc]}))
    events = pl.DataFrame({"numeric_value": values}, schema={"numeric_value": pl.Float32})
    known = events.join(table.select(HOW_TO_BIN), how="cross").with_columns(value=converted())
    return known.select("value", bin=pl.when(plausible()).then(bin_index()))


def edges(lab: Lab) -> list[float]:
    """Cuts and the ends of what is plausible."""
    return [lab.plausible[0], *(cut for cut in lab.cuts if cut is not None), lab.plausible[1]]


@st.composite
def measured(draw) -> tuple[Lab, str, list[float]]:
    """An analyte, a unit, and plausible values in the conventional unit, of five digits: as exact as tests are read."""
    lab, unit = draw(st.sampled_from(LABS))
    least, greatest = lab.plausible
    inside = st.floats(least, greatest).map(lambda value: float(f"{value:.5g}"))
    drawn = draw(st.lists(inside | st.sampled_from(edges(lab)), min_size=1, max_size=8))
    return lab, unit, [min(max(value, least), greatest) for value in drawn]


@given(measured=measured())
def test_a_unit_changes_neither_a_value_nor_its_bin(measured):
    lab, unit, values = measured
    found = looked_at(lab, unit, [value / lab.units[unit] for value in values])
    assert found["value"].to_list() == pytest.approx(values, rel=1e-12, abs=1e-30)
    assert found["bin"].to_list() == looked_at(lab, lab.unit, values)["bin"].to_list()


@given(measured=measured())
def test_a_plausible_value_is_in_one_bin_and_an_edge_on_its_normal_side(measured):
    lab, _, values = measured
    for value, index in zip(values, looked_at(lab, lab.unit, values)["bin"], strict=True):
        holding = [name for name, ends in lab.ranges().items() if _holds(name, value, *ends)]
        assert holding == [BINS[index]]


def _holds(name: str, value: float, low: float, high: float) -> bool:
    """As `Lab.ranges` says: low bins without their end, high bins without their beginning."""
    if name in ("critical_low", "low"):
        return low <= value < high
    return low < value <= high if name in ("high", "critical_high") else low <= value <= high


@given(measured=measured())
def test_a_greater_value_is_never_in_a_lower_bin(measured):
    lab, unit, values = measured
    found = looked_at(lab, unit, sorted(value / lab.units[unit] for value in values))
    assert found["bin"].is_sorted()


@given(choice=st.sampled_from(LABS), value=st.floats(1e-4, 1e6))
def test_a_value_is_converted_up_to_its_sixth_digit(choice, value):
    lab, unit = choice
    assert looked_at(lab, unit, [value])["value"].item() == pytest.approx(value * lab.units[unit], rel=ROUNDING)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    """The decoder's rows of every analyte, unit and bin."""
    found = [(f"LAB//{lab.loinc}//{name}", f"LAB//{unit}", unit) for lab, unit in LABS for name in lab.ranges()]
    sources = pl.DataFrame(found, schema=["token", "code", "unit"], orient="row")
    sources = sources.with_columns(events=pl.lit(1, pl.Int64), patients=pl.lit(1, pl.Int64))
    return decoder(sources, tokens=sources["token"].unique(), label=None, minimum_patients=1)


@settings(max_examples=150)
@given(choice=st.sampled_from(LABS), share=st.floats(-0.2, 1.2), data=st.data())
def test_a_token_is_decoded_to_the_values_that_are_binned_there_and_no_others(rows, choice, share, data):
    lab, unit = choice
    name = data.draw(st.sampled_from(sorted(lab.ranges())))
    row = rows.row(by_predicate=(pl.col("token") == f"LAB//{lab.loinc}//{name}") & (pl.col("unit") == unit), named=True)
    value = row["low"] + share * (row["high"] - row["low"])
    inside = row["low"] <= value <= row["high"]
    near_an_edge = any(
        abs(value - end) <= ROUNDING * max(abs(end), abs(value), 1e-30) for end in (row["low"], row["high"])
    )
    (index,) = looked_at(lab, unit, [value])["bin"]
    if not near_an_edge:
        assert (index == BINS.index(name)) == inside
