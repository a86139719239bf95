"""Tokens -> one of the source codes behind each, and a number inside its range.

In:  `cohort/decoder.parquet`, token ids, random streams.   Out: `Choices`.
Never: a code that the decoder does not hold; randomness that is not passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from fairsynth.errors import ArtefactError
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.seeds import Streams

_MARGIN = 0.01  # of a range, kept free at both ends so that rounding never leaves the bin
_DIGITS = 4  # significant digits of a drawn value


@dataclass(frozen=True, kw_only=True, eq=False)
class Choices:
    """What became of K tokens: `source` (null: undecodable), `unit`, `low`, `high`, and a `value` between them."""

    source: pl.Series
    unit: pl.Series
    low: pl.Series
    high: pl.Series
    value: pl.Series


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoder:
    """The options behind every token, R rows sorted by token.

    `ends` (R,) is the token's id plus the cumulative share of its options, so that one search draws for all tokens.
    """

    options: pl.DataFrame  # source_code, unit, low, high
    token: IntArray
    ends: FloatArray

    @classmethod
    def read(cls, path: Path, *, names: Sequence[str]) -> Self:
        """The decoder at `path` for the tokens `names`. Raises ArtefactError when it is missing."""
        if not path.is_file():
            raise ArtefactError.of("no decoder", where=str(path), do="encode the cohort again")
        ids = pl.DataFrame({"token": list(names), "id": np.arange(len(names))})
        options = (
            pl.read_parquet(path)
            .filter(pl.col("weight") > 0)
            .join(ids, on="token", how="inner")
            .sort("id", "source_code", "unit", nulls_last=False)
            .with_columns((pl.col("weight").cum_sum() / pl.col("weight").sum()).over("id").alias("share"))
        )
        token = options["id"].to_numpy().astype(np.int64)
        return cls(
            options=options.select("source_code", "unit", "low", "high"),
            token=token,
            ends=token + options["share"].to_numpy(),
        )

    def sources(self, tokens: slice) -> pl.Series:
        """The source codes behind these tokens."""
        return self.options["source_code"].filter(pl.Series((self.token >= tokens.start) & (self.token < tokens.stop)))

    def draw(self, tokens: IntArray, *, streams: Streams, purpose: str) -> Choices:
        """An option for each of `tokens` (K,), by weight, and a value drawn evenly in its range."""
        uniform = streams(purpose, "option").random(len(tokens))
        rows = np.searchsorted(self.ends, tokens + uniform, side="right")
        known = rows < len(self.token)
        known[known] = self.token[rows[known]] == tokens[known]
        index = pl.Series(np.where(known, rows, 0)).set(pl.Series(~known), None)
        chosen = pl.select(index.alias("row")).with_columns(
            pl.lit(self.options[name]).gather("row").alias(name) for name in self.options.columns
        )
        value = inside(chosen["low"].to_numpy(), chosen["high"].to_numpy(), rng=streams(purpose, "value"))
        return Choices(
            source=chosen["source_code"],
            unit=chosen["unit"],
            low=chosen["low"],
            high=chosen["high"],
            value=pl.Series(value).fill_nan(None),
        )


def inside(low: FloatArray, high: FloatArray, *, rng: np.random.Generator) -> FloatArray:
    """(K,) evenly between `low` and `high`, off both ends; NaN where a bound is."""
    width = high - low
    value = low + width * rng.uniform(_MARGIN, 1 - _MARGIN, size=len(low))
    rounded = _significant(value)
    return np.where((rounded > low) & (rounded < high), rounded, value)


def _significant(values: FloatArray) -> FloatArray:
    """`values` with `_DIGITS` significant digits."""
    size = np.abs(np.where(np.isfinite(values) & (values != 0), values, 1.0))
    scale: npt.NDArray[np.float64] = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(size)))
    return np.round(values * scale) / scale
