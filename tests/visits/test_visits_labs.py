"""Laboratory units, cut points and bins; ages, gaps and stays."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fairsynth.visits.bins import AGE_BINS, DAYS_PER_YEAR, GAP_BINS, LOS_BINS, age_days, binned
from fairsynth.visits.labs import (
    BINS,
    Lab,
    bin_index,
    conversions,
    converted,
    find_lab,
    labs,
    labs_by_loinc,
    plain_unit,
)

LABS = list(labs())

# Factor from the conventional unit to the SI unit, as the table of the AMA Manual of Style (10th edition, 17.5.11) and
# of JAMA's instructions print it, to two to four digits; enzymes: 1 microkatal is 60 units.
LITERATURE = [  # LOINC, conventional unit, SI unit, SI = conventional x
    ("2160-0", "mg/dL", "umol/L", 88.4),
    ("2345-7", "mg/dL", "mmol/L", 0.0555),
    ("3094-0", "mg/dL", "mmol/L", 0.357),
    ("2951-2", "mEq/L", "mmol/L", 1.0),
    ("2823-3", "mEq/L", "mmol/L", 1.0),
    ("2075-0", "mEq/L", "mmol/L", 1.0),
    ("1963-8", "mEq/L", "mmol/L", 1.0),
    ("2000-8", "mg/dL", "mmol/L", 0.25),
    ("2601-3", "mg/dL", "mmol/L", 0.411),
    ("2601-3", "mEq/L", "mmol/L", 0.5),
    ("2777-1", "mg/dL", "mmol/L", 0.323),
    ("1975-2", "mg/dL", "umol/L", 17.104),
    ("1968-7", "mg/dL", "umol/L", 17.104),
    ("1751-7", "g/dL", "g/L", 10.0),
    ("2885-2", "g/dL", "g/L", 10.0),
    ("718-7", "g/dL", "g/L", 10.0),
    ("718-7", "g/dL", "mmol/L", 0.6206),
    ("786-4", "g/dL", "g/L", 10.0),
    ("785-6", "pg", "fmol", 0.06206),
    ("4544-3", "%", "L/L", 0.01),
    ("804-5", "K/uL", "10^9/L", 1.0),
    ("777-3", "K/uL", "10^9/L", 1.0),
    ("789-8", "m/uL", "10^12/L", 1.0),
    ("3084-1", "mg/dL", "umol/L", 59.485),
    ("32693-4", "mg/dL", "mmol/L", 0.111),
    ("16362-6", "ug/dL", "umol/L", 0.587),
    ("3255-7", "mg/dL", "g/L", 0.01),
    ("11557-6", "mm Hg", "kPa", 0.133),
    ("11556-8", "mm Hg", "kPa", 0.133),
    ("2093-3", "mg/dL", "mmol/L", 0.0259),
    ("2085-9", "mg/dL", "mmol/L", 0.0259),
    ("13457-7", "mg/dL", "mmol/L", 0.0259),
    ("2571-8", "mg/dL", "mmol/L", 0.0113),
    ("2498-4", "ug/dL", "umol/L", 0.179),
    ("2500-7", "ug/dL", "umol/L", 0.179),
    ("3034-6", "mg/dL", "g/L", 0.01),
    ("4542-7", "mg/dL", "g/L", 0.01),
    ("2276-4", "ng/mL", "ug/L", 1.0),
    ("2132-9", "pg/mL", "pmol/L", 0.7378),
    ("2284-8", "ng/mL", "nmol/L", 2.266),
    ("3024-7", "ng/dL", "pmol/L", 12.871),
    ("1988-5", "mg/dL", "mg/L", 10.0),
    ("6598-7", "ng/mL", "ng/L", 1000.0),
    ("33762-6", "pg/mL", "pmol/L", 0.118),
    ("10535-3", "ng/mL", "nmol/L", 1.281),
    ("3968-5", "ug/mL", "umol/L", 3.96),
    ("20578-1", "ug/mL", "umol/L", 0.690),
    ("1742-6", "IU/L", "ukat/L", 0.01667),
    ("2324-2", "U/L", "ukat/L", 0.01667),
]


def in_conventional_unit(loinc: str, value: float, unit: str) -> float:
    pairs = pl.DataFrame({"code": ["LAB//1"], "unit": [unit], "loinc": [loinc]})
    table = conversions(pairs).with_columns(pl.lit(value, dtype=pl.Float32).alias("numeric_value"))
    return table.select(converted()).item()


def bin_of(lab: Lab, value: float) -> str:
    columns = {f"cut{index}": [cut] for index, cut in enumerate(lab.cuts)}
    frame = pl.DataFrame({"value": [value], **columns}, schema_overrides=dict.fromkeys(columns, pl.Float64))
    return BINS[frame.select(bin_index()).item()]


def bin_by_hand(lab: Lab, value: float) -> str:
    critical_low, low, high, critical_high = lab.cuts
    if critical_low is not None and value < critical_low:
        return "critical_low"
    if low is not None and value < low:
        return "low"
    if critical_high is not None and value > critical_high:
        return "critical_high"
    if high is not None and value > high:
        return "high"
    return "normal"


@pytest.mark.parametrize(
    ("loinc", "value", "unit", "conventional"),
    [
        ("2160-0", 88.4, "umol/L", 1.0),  # creatinine
        ("2160-0", 88.4, "µmol/L", 1.0),
        ("2345-7", 5.55, "mmol/L", 100.0),  # glucose
        ("3094-0", 10.0, "mmol/L", 28.0),  # urea nitrogen
        ("1975-2", 17.1, "umol/L", 1.0),  # bilirubin
        ("2000-8", 2.5, "mmol/L", 10.0),  # calcium
        ("2601-3", 1.0, "mmol/L", 2.43),  # magnesium
        ("2777-1", 1.0, "mmol/L", 3.1),  # phosphate
        ("718-7", 120.0, "g/L", 12.0),
        ("1751-7", 35.0, "g/L", 3.5),
        ("11557-6", 5.33, "kPa", 40.0),
        ("32693-4", 18.0, "mg/dL", 2.0),
        ("3255-7", 2.0, "g/L", 200.0),
        ("2823-3", 4.0, "mmol/L", 4.0),
        ("804-5", 7.5, "10^9/L", 7.5),
    ],
)
def test_si_and_conventional_units_give_the_same_value(loinc, value, unit, conventional):
    assert in_conventional_unit(loinc, value, unit) == pytest.approx(conventional, rel=2e-3)


@pytest.mark.parametrize(("loinc", "conventional", "si", "factor"), LITERATURE)
def test_a_conversion_is_the_one_that_the_literature_prints(loinc, conventional, si, factor):
    assert in_conventional_unit(loinc, 50.0 * factor, si) == pytest.approx(
        in_conventional_unit(loinc, 50.0, conventional), rel=4e-3
    )


def test_the_literature_covers_every_analyte_that_is_measured_in_two_ways():
    """Units that are names of one another are no conversion: the factor between them is 1."""
    converted = {lab.loinc for lab in LABS if len({round(factor, 9) for factor in lab.units.values()}) > 1}
    same_factor = {"1994-3", "1920-8", "6768-6", "2532-0", "2157-6", "3040-3", "1798-8", "6773-6", "30934-4"}
    assert len(LITERATURE) >= 30
    assert converted - same_factor <= {loinc for loinc, *_ in LITERATURE}


def test_a_value_stored_as_float32_that_equals_a_cut_stays_on_the_normal_side():
    creatinine = labs_by_loinc()["2160-0"]
    assert in_conventional_unit("2160-0", 1.3, "mg/dL") == 1.3
    assert bin_of(creatinine, 1.3) == "normal"
    assert bin_of(creatinine, 1.31) == "high"
    assert bin_of(creatinine, 0.5) == "normal"
    assert bin_of(creatinine, 0.49) == "low"


@given(st.sampled_from(LABS), st.floats(0, 1))
def test_the_bin_is_the_one_chosen_by_hand(lab, share):
    least, greatest = lab.plausible
    value = least + share * (greatest - least)
    assert bin_of(lab, value) == bin_by_hand(lab, value)


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_the_bins_of_a_test_tile_its_plausible_range(lab):
    ranges = list(lab.ranges().values())
    assert ranges[0][0] == lab.plausible[0]
    assert ranges[-1][1] == lab.plausible[1]
    assert all(left[1] == right[0] for left, right in pairwise(ranges))
    for name, (low, high) in lab.ranges().items():
        assert bin_of(lab, (low + high) / 2) == name


def test_a_conversion_needs_a_known_code_and_a_known_unit():
    pairs = pl.DataFrame(
        {
            "code": ["LAB//1", "LAB//1", "LAB//1", "LAB//2", "LAB//3", "LAB//4"],
            "unit": ["mg/dL", "furlong", None, "mg/dL", "mg/dL", None],
            "loinc": ["2160-0", "2160-0", "2160-0", None, "99999-9", "5895-7"],
        }
    )
    assert conversions(pairs).select("code", "unit").rows() == [("LAB//1", "mg/dL"), ("LAB//4", None)]


def test_codes_of_one_analyte_share_one_token():
    found = [find_lab("2339-0", "mg/dL"), find_lab("14749-6", "mmol/L")]
    assert [lab.loinc for lab in found] == ["2345-7", "2345-7"]


def test_the_unit_decides_where_sources_give_one_code_to_two_analytes():
    """MIMIC-III writes creatine kinase MB in ng/mL and transferrin in mg/dL under codes that mean something else."""
    cases = [("6773-6", "ng/mL"), ("6773-6", "U/L"), ("2500-7", "ug/dL"), ("2500-7", "mg/dL")]
    assert [find_lab(*case).loinc for case in cases] == ["13969-1", "6773-6", "2500-7", "3034-6"]
    assert find_lab("6773-6", None) is find_lab(None, "U/L") is None


def test_units_are_read_whatever_their_blanks_case_and_micro_sign():
    assert [plain_unit(unit) for unit in ("mm Hg", "MEQ/L", "µmol/L", "sec.", None)] == [
        "mmhg",
        "meq/l",
        "umol/l",
        "sec",
        "",
    ]


def test_eicu_s_spelling_of_units_is_read():
    written = ("Units/L", "K/mcL", "mcg/dL", "mcU/ml", "mOsm/kg H2O")
    assert [plain_unit(unit) for unit in written] == ["u/l", "k/ul", "ug/dl", "uu/ml", "mosm/kg"]


@pytest.mark.parametrize("cuts", [(None, 5, 4, None), (1, None, 3, 4), (None, None, None, 4), (1, 2, 3, 99)])
def test_a_table_entry_with_impossible_cuts_is_refused(cuts):
    with pytest.raises(ValidationError):
        Lab(name="x", loinc="1-1", unit="u", units={"u": 1}, cuts=cuts, plausible=(0, 10))


@pytest.mark.parametrize(
    ("days", "name"),
    [
        (0, "neonate"),
        (27.9, "neonate"),
        (28, "infant"),
        (366, "1-4"),
        (17 * DAYS_PER_YEAR, "13-17"),
        (18 * DAYS_PER_YEAR, "18-29"),
        (89.9 * DAYS_PER_YEAR, "80-89"),
        (90 * DAYS_PER_YEAR, "90+"),
        (118 * DAYS_PER_YEAR, "90+"),
    ],
)
def test_an_age_falls_into_its_bin(days, name):
    assert pl.select(binned(pl.lit(days), AGE_BINS)).item() == name


@pytest.mark.parametrize("bins", [AGE_BINS, GAP_BINS, LOS_BINS], ids=["age", "gap", "stay"])
def test_day_bins_follow_one_another_and_hold_their_own_range(bins):
    ranges = list(bins.values())
    assert ranges[0][0] == 0
    assert all(left[1] == right[0] for left, right in pairwise(ranges))
    for name, (low, high) in bins.items():
        values = pl.Series([low, (low + high) / 2, high - 1e-6], dtype=pl.Float64)
        assert pl.select(binned(pl.lit(values), bins)).to_series().to_list() == [name] * 3


def test_an_unknown_number_of_days_has_no_bin():
    assert pl.select(binned(pl.lit(None, dtype=pl.Float64), GAP_BINS)).item() is None


def test_ages_shifted_by_three_hundred_years_become_ninety_and_negative_ones_zero():
    at = datetime(2150, 1, 1)
    births = [datetime(1850, 1, 1), datetime(2100, 1, 1), at + timedelta(days=30)]
    ages = pl.DataFrame({"birth": births}).select(age_days(pl.col("birth"), pl.lit(at)) / DAYS_PER_YEAR)
    assert ages.to_series().to_list() == pytest.approx([90, 50, 0], abs=0.01)
