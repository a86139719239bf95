"""What one named array of a message may be: the rules of a policy's `arrays`.

In:  a rule of the policy, the array that is to leave.   Out: what is wrong with it, in words of the rule.
Never: a number of the array in a problem.

A shape is a list of whole numbers and of letters: those that the plan fixes (`groups`, `predictors`, `seeds`), and
others, such as `codes`, that may be any length but the same one everywhere in the message. `any` allows every shape.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from fairsynth.config import Strict

Kept = Literal["float32", "float64", "int64", "uint64", "bfloat16"]  # bfloat16 travels as its bits, uint16
Axis = PositiveInt | Annotated[str, Field(pattern=r"^[a-z_]{1,24}$")]

_TOP = np.uint64(48)  # a masked value's upper 16 bits are all alike with a chance of 2^-15
_ALL = np.uint64(0xFFFF)
_LEAST_VALUES = 4  # of a masked array, from which on it is looked at


class Values(Strict):
    """Bounds of every value; NaN and infinity lie outside of any."""

    least: float
    most: float


class ArrayRule(Strict):
    """One array, or all whose names match `name` with its `*`."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_/]{0,47}\*?$")]
    dtype: tuple[Kept, ...] = Field(min_length=1)
    shape: tuple[Axis, ...] | Literal["any"]
    most_values: PositiveInt  # of one array
    values: Values | None = None  # None: any value; only for masked arrays
    masked: Literal["required", "allowed", "never"]  # never: it tells nothing of this site's patients alone
    optional: bool = False
    at_most: PositiveInt = 1  # arrays of this rule in one message


def rule_of(rules: tuple[ArrayRule, ...], name: str) -> ArrayRule | None:
    """The first rule that names `name`."""
    return next((rule for rule in rules if fnmatch.fnmatchcase(name, rule.name)), None)


def wrong_array(
    rule: ArrayRule, array: npt.NDArray[np.generic], *, is_masked: bool, unmasked_allowed: bool, sizes: dict[str, int]
) -> Iterator[str]:
    """What is wrong with `array`, as the rules that it breaks. `sizes` holds the letters' lengths, and learns new."""
    kept = _kept(rule, array)
    if kept is None:
        yield f"type {' or '.join(rule.dtype)}"
        return
    if not _fits_shape(rule, array.shape, sizes):
        yield f"shape {_shown(rule.shape)}"
    if array.size > rule.most_values:
        yield f"at most {rule.most_values} values"
    yield from _wrong_mask(rule, array, is_masked=is_masked, unmasked_allowed=unmasked_allowed)
    if rule.values is not None and not is_masked and not _within(rule.values, _numbers(kept, array)):
        yield f"finite values from {rule.values.least:g} to {rule.values.most:g}"


def looks_masked(array: npt.NDArray[np.generic]) -> bool:
    """Whether uint64 values look like a mask's: plain counts and fixed-point numbers leave their upper bits all alike.

    Shows damage, such as a vector that was never masked; of fewer than 4 values it says nothing. A masked vector of 4
    is taken for a plain one with a chance below 1e-12.
    """
    if array.size < _LEAST_VALUES:
        return True
    top = (array.astype(np.uint64) >> _TOP) & _ALL
    alike = int(((top == 0) | (top == _ALL)).sum())
    return 2 * alike <= array.size


def _wrong_mask(
    rule: ArrayRule, array: npt.NDArray[np.generic], *, is_masked: bool, unmasked_allowed: bool
) -> Iterator[str]:
    if is_masked:
        if rule.masked == "never":
            yield "an array without a mask"
        elif array.dtype != np.uint64:
            yield "a masked array of type uint64"
        elif not looks_masked(array):
            yield "a mask on what is called masked"
    elif rule.masked == "required" or (rule.masked == "allowed" and not unmasked_allowed):
        yield "a mask: unmasked records are not allowed here"


def _kept(rule: ArrayRule, array: npt.NDArray[np.generic]) -> Kept | None:
    """The type of the rule that the array is of."""
    found = str(array.dtype)
    return next((kept for kept in rule.dtype if ("uint16" if kept == "bfloat16" else kept) == found), None)


def _fits_shape(rule: ArrayRule, shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
    if rule.shape == "any":
        return True
    if len(shape) != len(rule.shape):
        return False
    return all(
        length == (axis if isinstance(axis, int) else sizes.setdefault(axis, length))
        for axis, length in zip(rule.shape, shape, strict=True)
    )


def _numbers(kept: Kept, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The array's numbers: bfloat16 is the upper half of a float32."""
    if kept != "bfloat16":
        return array
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _within(values: Values, numbers: npt.NDArray[np.generic]) -> bool:
    return not numbers.size or bool(
        np.isfinite(numbers).all() and numbers.min() >= values.least and numbers.max() <= values.most
    )


def _shown(shape: tuple[Axis, ...] | str) -> str:
    return shape if isinstance(shape, str) else f"({', '.join(map(str, shape))})"


__all__ = ["ArrayRule", "Values", "looks_masked", "rule_of", "wrong_array"]
