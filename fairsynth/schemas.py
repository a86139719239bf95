"""The vocabulary of types that every package shares.

In:  nothing.   Out: identifiers that must not mix, the splits, the sexes, arrays.
Never: file access, arithmetic.
"""

from __future__ import annotations

from typing import Literal, NewType

import numpy as np
import numpy.typing as npt

SiteId = NewType("SiteId", str)
Group = NewType("Group", str)  # a value of the sensitive attribute, e.g. "black"
Split = Literal["train", "validation", "held_out"]

SPLITS: tuple[Split, ...] = ("train", "validation", "held_out")
SEXES = ("female", "male")

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[np.generic]]
