"""JSON text -> values, with the checks that Python's reader does not make.

In:  text or a file, and the error of the door that it came through.   Out: its values, or that error.
Never: NaN or infinity, a key twice, a number that no double holds, text that takes more memory than its caps say.

Python's own reader accepts `NaN`, keeps the last of two equal keys, and has no limit on depth or on the number of
values (RFC 8259 leaves all three open).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from fairsynth.errors import ArtefactError, FairSynthError

MAXIMUM_CHARACTERS = 16 << 20
MAXIMUM_VALUES = 1_000_000  # lists, mappings and what is in them: bounds the memory of what is read
MAXIMUM_DEPTH = 32
MAXIMUM_STRING = 4096  # characters of one key or text
MAXIMUM_INTEGER = 1 << 63


def parse(text: str, *, where: str, error: type[FairSynthError] = ArtefactError) -> Any:
    """The values of `text`. Raises `error` when it is not JSON, or over one of the caps above."""
    if len(text) > MAXIMUM_CHARACTERS or _values(text) > MAXIMUM_VALUES:
        raise error.of(
            "JSON too large",
            where=where,
            expected=f"at most {MAXIMUM_CHARACTERS:,} characters, {MAXIMUM_VALUES:,} values",
        )
    try:
        found = json.loads(text, parse_constant=_refuse, parse_int=_integer, object_pairs_hook=_mapping)
        _check(found, MAXIMUM_DEPTH)
    except (ValueError, RecursionError):
        raise error.of(
            "not plain JSON",
            where=where,
            expected=f"finite numbers, no key twice, texts up to {MAXIMUM_STRING} characters, depth {MAXIMUM_DEPTH}",
        ) from None
    return found


def read(path: Path, *, error: type[FairSynthError] = ArtefactError) -> Any:
    """The values of the file at `path`. Raises `error` as `parse` does, and when it cannot be read as UTF-8."""
    return parse(read_text(path, error=error), where=str(path), error=error)


def read_text(path: Path, *, error: type[FairSynthError] = ArtefactError, maximum: int = MAXIMUM_CHARACTERS) -> str:
    """The text of the file at `path`, of at most `maximum` bytes. Raises `error` otherwise."""
    try:
        with path.open("rb") as handle:
            content = handle.read(maximum + 1)  # never more, whatever the folder says of the file's size
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise error.of("file cannot be read as UTF-8", where=str(path)) from None
    if len(content) > maximum:
        raise error.of("file too large", where=str(path), expected=f"at most {maximum:,} bytes")
    return text


def _values(text: str) -> int:
    """At least the number of values in `text`, without reading it."""
    return sum(map(text.count, ",[{:"))


def _refuse(_: str) -> NoReturn:
    raise ValueError("a constant that JSON does not have")


def _integer(digits: str) -> int:
    if len(digits) > len(str(MAXIMUM_INTEGER)) + 1 or abs(number := int(digits)) > MAXIMUM_INTEGER:
        raise ValueError("an integer of more than 64 bits")
    return number


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _check(value: Any, depth: int) -> None:
    """Raise ValueError on too much depth, a long text or a number that became infinite (1e999)."""
    if isinstance(value, str) and len(value) > MAXIMUM_STRING:
        raise ValueError("a text too long")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number too large")
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError("too deep")
        for one in value:
            _check(one, depth - 1)
        if isinstance(value, dict):
            for one in value.values():
                _check(one, depth - 1)
