"""The files that a report is made of, each read and checked once.

In:  a path and what it must fit.   Out: frozen models, and the journal's events.
Never: a value of a file in an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic import ValidationError as PydanticError

from fairsynth.errors import ArtefactError
from fairsynth.federation import journal

Model = TypeVar("Model", bound=BaseModel)

PLAN = "plan.json"
ENROLMENT = "enrolment.json"
AUDIT = "audit"


class Line(BaseModel):
    """Frozen; keys that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def read(path: Path, model: type[Model]) -> Model:
    """The JSON file at `path`. Raises ArtefactError when it is missing or does not fit `model`."""
    if not path.is_file():
        raise missing(path)
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except PydanticError as error:
        raise unfit(path, error) from None


def events(path: Path) -> tuple[dict[str, Any], ...]:
    """The journal's events, of the last run when a folder was used twice. Raises ArtefactError."""
    if not path.is_file():
        raise missing(path)
    try:
        found = journal.read(path)
    except json.JSONDecodeError:
        raise ArtefactError.of("not JSON", where=str(path), do="run the study again") from None
    begun = max((index for index, event in enumerate(found) if event.get("event") == "study"), default=0)
    return tuple(found[begun:])


def missing(path: Path) -> ArtefactError:
    """The error for a file that a finished study has."""
    return ArtefactError.of(
        "missing file of a finished study",
        where=str(path),
        expected=f"the server folder of a study: {PLAN}, {journal.NAME}, {ENROLMENT}, {AUDIT}/",
        do="give the folder that `fairsynth study` printed, or let the study finish first",
    )


def unfit(path: Path, error: PydanticError) -> ArtefactError:
    """The error for a file of another shape; it names keys, never values."""
    keys = sorted({".".join(map(str, detail["loc"])) for detail in error.errors()})
    return ArtefactError.of("file does not fit its schema", where=str(path), expected=f"valid {', '.join(keys[:5])}")
