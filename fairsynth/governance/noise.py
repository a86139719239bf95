"""Discrete Gaussian noise on counts, and how much of it.

In:  int64 values of which a patient changes little.   Out: the same values with noise.
Never: a seed (OpenDP draws from the system); floats; a second draw of what was drawn (`drawn` keeps the first).

Real numbers are noised as fixed-point integers: `clipped_sum` bounds what one patient adds to a sum in L2 norm, in the
units of the result. The sampler is exact (Canonne, Kamath and Steinke 2020, arXiv 2004.00010), so that no rounding of
floating-point numbers tells values apart (Mironov 2012).
"""

from __future__ import annotations

import math

import numpy as np

from fairsynth.errors import ConfigError
from fairsynth.schemas import FloatArray, IntArray

FRACTION_BITS = 16  # of fixed-point numbers
UNIT = 1 << FRACTION_BITS  # what 1.0 is in fixed point
LEAST_SIGMA = 1.0  # below it discrete and continuous Gaussians differ, and the accountant knows the latter
_LARGEST = 1 << 53


def discrete_gaussian(values: IntArray, /, *, sigma: float) -> IntArray:
    """`values` plus independent discrete Gaussian noise of scale `sigma`, in the units of the values.

    Raises ConfigError when sigma is below 1 or a value is 2^53 or more (noise must not wrap).
    """
    if not (math.isfinite(sigma) and LEAST_SIGMA <= sigma < _LARGEST):
        raise ConfigError.of(
            "noise of a scale that is not usable",
            where=f"sigma {sigma:g}",
            expected=f"{LEAST_SIGMA:g} or more, in units of the values",
            do="count in smaller units (fixed point)",
        )
    if values.dtype != np.int64 or (np.abs(values) >= _LARGEST).any():
        raise ConfigError.of(
            "values that noise may not be added to", where=str(values.dtype), expected="int64 below 2^53"
        )
    import opendp.prelude as dp  # 2 s to import: only where noise is drawn

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    drawn = dp.m.make_gaussian(*space, scale=float(sigma))(values.ravel().tolist())
    return np.array(drawn, dtype=np.int64).reshape(values.shape)


def sensitivity_of_cells(cells: int) -> float:
    """The L2 sensitivity of counts of which one patient, added or left out, changes at most `cells`, each by 1."""
    return math.sqrt(cells)


def local_sigma(total: float, *, sites: int, colluding: int) -> float:
    """The noise of each site, for the sum over the honest sites to have standard deviation `total`.

    `colluding` sites, the one that looks included, know their own noise and subtract it. With two sites the other one
    is all that colludes, and each needs the whole noise. Raises ConfigError when nobody honest is left.
    """
    honest = sites - colluding
    if colluding < 0 or honest < 1:
        raise ConfigError.of("no honest site", where=f"{colluding} of {sites} collude", expected="fewer than all")
    return total / math.sqrt(honest)


def sum_gap(sigma: float, *, sites: int) -> float:
    """How far the log-density of a sum of discrete Gaussians is from that of one (the tau of Kairouz, Liu and Steinke
    2021, arXiv 2102.06387, proposition 9, for one coordinate); from `sigma` 3 on it is below 1e-36."""
    steps = np.arange(1, sites)
    return float(10 * np.exp(-2 * (math.pi * sigma) ** 2 * steps / (steps + 1)).sum())


def clipped_sum(vectors: FloatArray, *, bound: float) -> IntArray:
    """(D,) fixed-point sum of the patients' (B, D) `vectors`, each scaled down to an L2 norm of at most `bound`.

    One patient added or left out changes it by at most `bound * UNIT` in L2 norm, rounding included: each number is
    rounded towards zero. A vector that is not finite counts as zero.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = vectors * np.minimum(1.0, bound / norms * (1 - 1e-9))
    scaled = np.where(np.isfinite(norms) & (norms > 0), scaled, 0.0)
    return np.asarray(np.trunc(scaled * UNIT).astype(np.int64).sum(axis=0))


def from_fixed(values: IntArray) -> FloatArray:
    """Fixed-point numbers as floats."""
    return values / UNIT
