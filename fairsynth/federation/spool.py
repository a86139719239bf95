"""Arrays of the replies of one round, out of memory until all are there.

In:  arrays by site, in the order of arrival.   Out: one array of one site at a time.
Never: a name on disk: the file has none, so nothing is left of it however the process ends.

Sums over sites are taken in the order of their names, so that they are the same whoever answers first. Until the last
has answered the others wait here: the server's memory does not grow with their number, its disk does.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from fairsynth.errors import ArtefactError
from fairsynth.schemas import Arrays, SiteId

IN_MEMORY = 32 << 20  # bytes; a round of small models never touches the disk


@dataclass(frozen=True, kw_only=True)
class _Place:
    start: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Spool:
    """The arrays of one round's replies, in an unnamed file in the folder `root`.

    Reading and writing raise OSError as files do.
    """

    def __init__(self, root: Path) -> None:
        self._file = tempfile.SpooledTemporaryFile(dir=str(root))  # noqa: SIM115  closed by `__exit__`
        self._root = root
        self._places: dict[tuple[SiteId, str], _Place] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def check_room(self, needed: int) -> None:
        """Raise ArtefactError when the disk has not so many bytes: before sites work for nothing."""
        free = shutil.disk_usage(self._root).free
        if needed > max(free, IN_MEMORY):
            raise ArtefactError.of(
                f"no room for a round's replies: {free:,} bytes are free",
                where=str(self._root),
                expected=f"{needed:,} bytes while a round is collected",
                do="make room, then go on with `fairsynth study ... --resume`: committed rounds are kept",
            )

    def put(self, site: SiteId, arrays: Arrays) -> None:
        """Keep a site's arrays."""
        for name, array in arrays.items():
            start = self._file.seek(0, os.SEEK_END)
            if start + array.nbytes > IN_MEMORY:
                self._file.rollover()
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self._places[site, name] = _Place(start=start, dtype=array.dtype, shape=array.shape)

    def get(self, site: SiteId, name: str) -> npt.NDArray[np.generic]:
        """One array, as it was put. Raises KeyError where there is none."""
        place = self._places[site, name]
        self._file.seek(place.start)
        content = self._file.read(place.size)
        if len(content) < place.size:
            raise OSError(errno.EIO, "the file of a round's replies ends early")
        return np.frombuffer(content, dtype=place.dtype).reshape(place.shape)

    def names(self, prefix: str = "") -> list[str]:
        """The names of the arrays that begin so, sorted."""
        return sorted({name for _, name in self._places if name.startswith(prefix)})

    def arrays(self, site: SiteId) -> Arrays:
        """All arrays of one site."""
        return {name: self.get(one, name) for one, name in self._places if one == site}
