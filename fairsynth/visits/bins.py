"""Bins of age, of the gap between visits, and of the length of stay: the same at every site, whatever the plan.

In:  day counts.   Out: bin names and their ranges in days.
"""

from __future__ import annotations

import polars as pl

DAYS_PER_YEAR = 365.25
OLDEST_DAYS = 120 * DAYS_PER_YEAR
SHIFTED_YEARS = 150  # ages beyond it are a source's de-identification of patients over 89 (MIMIC adds 300 years)
SHIFTED_TO_YEARS = 90.0

_YEARS = ((1, 5), (5, 13), (13, 18), (18, 30), *((decade, decade + 10) for decade in range(30, 90, 10)))

# bin -> first and last day, the last one excluded
AGE_BINS: dict[str, tuple[float, float]] = {
    "neonate": (0, 28),
    "infant": (28, DAYS_PER_YEAR),
    **{f"{low}-{high - 1}": (low * DAYS_PER_YEAR, high * DAYS_PER_YEAR) for low, high in _YEARS},
    "90+": (90 * DAYS_PER_YEAR, OLDEST_DAYS),
}
GAP_BINS: dict[str, tuple[float, float]] = {
    "0d": (0, 1),
    "1-6d": (1, 7),
    "7-29d": (7, 30),
    "30-89d": (30, 90),
    "90-364d": (90, 365),
    "365d+": (365, 3650),
}
LOS_BINS: dict[str, tuple[float, float]] = {
    "0d": (0, 1),
    "1-2d": (1, 3),
    "3-6d": (3, 7),
    "7-13d": (7, 14),
    "14-29d": (14, 30),
    "30d+": (30, 365),
}


def binned(days: pl.Expr, bins: dict[str, tuple[float, float]]) -> pl.Expr:
    """The bin that holds `days`; values outside all bins go to the nearest one, null stays null."""
    starts = [low for low, _ in bins.values()]
    index = pl.sum_horizontal(*((days >= start).cast(pl.Int64) for start in starts[1:]))
    return pl.when(days.is_not_null()).then(index.replace_strict(dict(enumerate(bins)), return_dtype=pl.String))


def age_days(birth: pl.Expr, at: pl.Expr) -> pl.Expr:
    """Age in days at `at`: never negative, and 90 years where the source shifted the birth date."""
    days = ((at - birth).dt.total_seconds() / 86_400).clip(lower_bound=0)
    return pl.when(days > SHIFTED_YEARS * DAYS_PER_YEAR).then(SHIFTED_TO_YEARS * DAYS_PER_YEAR).otherwise(days)
