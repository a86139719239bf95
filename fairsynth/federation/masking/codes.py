"""The union of the sites' codes by a masked sum: who proposed a code is not told, nor how many patients each site has.

In:  a site's proposals, code -> patients.   Out: a table of sums; of the sum of all sites' tables, the union.
Never: a code that no site proposed; a union that is not whole.

An invertible Bloom lookup table (Goodrich and Mitzenmacher 2011) is a linear sketch, so that tables add up (Bell et al.
2022 and others use it so under secure aggregation). Every code adds itself to one cell in each third of the table: 1,
its patients, a check sum, and its name in words of four bytes. A cell that only one code is in gives its name away
(every sum is a multiple of the number of sites); the code is then taken out of its other cells, and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fairsynth.errors import CohortError, ProtocolError
from fairsynth.schemas import IntArray

NAME_BYTES = 200
THIRDS = 3
ROOM = 1.4  # cells for each code: peeling ends early below 1.23
SPARE = 96  # cells for small tables, where the asymptotic number does not hold

_SITES, _PATIENTS, _CHECK, _NAME = 0, 1, 2, 3
_WORDS = NAME_BYTES // 4
_CHARACTER = np.dtype("<u4")


def shape(capacity: int) -> tuple[int, int]:
    """Cells and numbers of a table for `capacity` codes."""
    third = -(-int(capacity * ROOM + SPARE) // THIRDS)
    return third * THIRDS, _NAME + _WORDS


def table(patients: Mapping[str, int], *, capacity: int) -> IntArray:
    """The table (cells, numbers) of one site. Raises ProtocolError on a name that does not fit."""
    cells = np.zeros(shape(capacity), dtype=np.int64)
    for code in sorted(patients):
        cells[_cells_of(code, len(cells))] += _entry(code, patients[code])
    return cells


def union(total: IntArray) -> dict[str, tuple[int, int]]:
    """Code -> (sites, patients), sorted, of the sum of the sites' tables.

    Raises CohortError when the table holds more codes than it has room for, or is no sum of tables.
    """
    left = total.copy()
    found: dict[str, tuple[int, int]] = {}
    waiting = list(np.flatnonzero(left[:, _SITES]))
    while waiting:
        cell = int(waiting.pop())
        code = _alone(left[cell], cell, cells=len(left))
        if code is None:
            continue
        entry = left[cell].copy()
        found[code] = int(entry[_SITES]), int(entry[_PATIENTS])
        for place in _cells_of(code, len(left)):
            left[place] -= entry
            waiting.append(np.int64(place))
    if left.any():
        raise CohortError.of(
            "the codes of all sites do not fit their table",
            where="enrol, the sites' proposals",
            expected="at most twice `vocabulary.maximum_codes` different codes",
            do="raise `vocabulary.minimum_patients` or `vocabulary.maximum_codes` in the study file",
        )
    return dict(sorted(found.items()))


def fits(code: str) -> bool:
    """Whether the table can hold a code of this name; a site leaves others out, for a failure would tell of it."""
    text = code.encode()
    return 1 <= len(text) <= NAME_BYTES and b"\0" not in text


def _entry(code: str, patients: int) -> IntArray:
    text = code.encode()
    if not fits(code):
        raise ProtocolError.of("code with a name that does not fit", where="codes", expected=f"{NAME_BYTES} bytes")
    words = np.frombuffer(text.ljust(NAME_BYTES, b"\0"), dtype=_CHARACTER).astype(np.int64)
    return np.concatenate([[1, patients, _digest(code)[THIRDS]], words]).astype(np.int64)


def _alone(cell: IntArray, place: int, *, cells: int) -> str | None:
    """The code that this cell holds, if it is the only one."""
    sites = int(cell[_SITES])
    if sites <= 0 or (cell[_CHECK:] % sites).any():
        return None
    words = cell[_NAME:] // sites
    if (words < 0).any() or (words > 0xFFFFFFFF).any():
        return None
    try:
        code = words.astype(_CHARACTER).tobytes().rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return None
    if not code or place not in _cells_of(code, cells) or int(cell[_CHECK]) != sites * _digest(code)[THIRDS]:
        return None
    return code


def _cells_of(code: str, cells: int) -> npt.NDArray[np.int64]:
    """(3,) the cells of a code, one in each third."""
    third = cells // THIRDS
    return np.array([number * third + _digest(code)[number] % third for number in range(THIRDS)], dtype=np.int64)


def _digest(code: str) -> tuple[int, ...]:
    """Three numbers for the cells, one of 32 bits for the check sum."""
    digest = hashlib.sha256(code.encode()).digest()
    places = (int.from_bytes(digest[8 * number : 8 * number + 8], "little") for number in range(THIRDS))
    return (*places, int.from_bytes(digest[24:28], "little"))
