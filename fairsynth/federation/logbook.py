"""A log of one JSON object a line, for operators and for programs that collect logs.

In:  an event's name and fields.   Out: `server.log` or `site.log`: whole lines, older files beside it by number.
Never: a field or a value that the schema below does not have: no message text, no traceback, no repr; an error that
stops a study, for a log that cannot be written is no fault of it.

Python's logging carries the lines, so that any of its handlers could. What a record has beyond the schema is dropped by
a filter before a formatter sees it.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

SERVER = "server.log"  # in the server's folder
LARGEST_BYTES = 4 << 20  # of one file
OLDER_FILES = 5
LONGEST_TEXT = 1000  # characters of one part of a problem

EVENTS = frozenset({"started", "stopped", "resumed", "asked", "answered", "refused", "committed", "finished", "failed"})
_PARTS = {"what", "where", "expected", "do"}  # of a problem: FairSynth's own words, which hold no patient's value


def _like(pattern: str) -> Callable[[object], bool]:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _are_problems(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and set(one) <= _PARTS
        and all(isinstance(text, str) and len(text) <= LONGEST_TEXT for text in one.values())
        for one in value
    )


# What a line may have beside `time`, `level` and `event`, in this order, and of what form.
SCHEMA: Mapping[str, Callable[[object], bool]] = {
    "study": _like(r"[0-9a-f]{64}"),
    "phase": _like(r"[a-z][a-z0-9 .,_-]{0,79}"),
    "site": _like(r"[a-z0-9][a-z0-9_-]{0,63}"),
    "code": _like(r"FS-\d{3}"),
    "arm": _like(r"[a-z]{1,20}"),
    "round": _is_number,
    "seconds": _is_number,
    "type": _like(r"[A-Za-z_][A-Za-z0-9_]{0,79}"),
    "at": _like(r"[\w.-]{1,80}:\d{1,7} [\w<>]{1,80}|unknown"),
    "problems": _are_problems,
}
_FIELDS = "fields"


class Allowed(logging.Filter):
    """Drops records of unknown events, and of the others everything that `SCHEMA` does not have."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record may be written; what may not is taken off it."""
        if record.msg not in EVENTS:
            return False
        record.args = ()
        record.exc_info = record.exc_text = record.stack_info = None
        given = getattr(record, _FIELDS, {})
        fields = given if isinstance(given, dict) else {}
        setattr(record, _FIELDS, {name: fields[name] for name, fits in SCHEMA.items() if _fits(fits, fields, name)})
        return True


class Line(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Time (UTC), level, event, then the fields that `Allowed` left."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat()
        told = {"time": when, "level": record.levelname.lower(), "event": record.msg, **getattr(record, _FIELDS, {})}
        return json.dumps(told, allow_nan=False)


class _Files(RotatingFileHandler):
    """Files of this user alone; what cannot be written is lost."""

    def _open(self) -> TextIOWrapper:
        return os.fdopen(
            os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8"
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the name that logging calls
        """Nothing: the handler's own answer is a traceback on standard error."""


class Logbook:
    """Writes to the file `path`, in a folder that exists."""

    def __init__(self, path: Path, **always: Any) -> None:
        handler = _Files(path, maxBytes=LARGEST_BYTES, backupCount=OLDER_FILES, encoding="utf-8", delay=True)
        handler.addFilter(Allowed())
        handler.setFormatter(Line())
        self._logger = logging.Logger(path.name)  # none of the process's own: nobody else's handler gets its records
        self._logger.addHandler(handler)
        self._handler, self._always = handler, always

    def tell(self, event: str, /, *, level: int = logging.INFO, **fields: Any) -> None:
        """Write one line."""
        self._logger.log(level, event, extra={_FIELDS: {**self._always, **fields}})

    def close(self) -> None:
        """Write no more."""
        self._handler.close()


def tell_once(path: Path, event: str, /, *, level: int, **fields: Any) -> None:
    """Write one line to the log at `path`, from a process that has no more to tell."""
    logbook = Logbook(path)
    logbook.tell(event, level=level, **fields)
    logbook.close()


def cut(text: str) -> str:
    """`text` as a problem may have it."""
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


def _fits(fits: Callable[[object], bool], fields: Mapping[str, object], name: str) -> bool:
    return name in fields and fits(fields[name])
