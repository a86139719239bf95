"""A plan that a command is given as a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from fairsynth import plain_json
from fairsynth.config import StudyPlan
from fairsynth.errors import ConfigError


def read_plan(path: Path) -> StudyPlan:
    """The plan at `path`. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError.of("missing file", where=str(path), expected="a study plan (JSON)")
    try:
        return StudyPlan.model_validate(plain_json.read(path, error=ConfigError))
    except ValidationError as error:
        keys = sorted({".".join(map(str, detail["loc"])) for detail in error.errors()})
        raise ConfigError.of("not a study plan", where=str(path), expected=f"valid {', '.join(keys)}") from None
