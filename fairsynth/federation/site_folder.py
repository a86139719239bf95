"""A site's folder, looked at from outside: who the site is, the plan that it enrolled for.

In:  the folder.   Out: checked files.   Never: patients; torch, for administrators ask often.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError as PydanticError

from fairsynth import plain_json
from fairsynth.config import Strict, StudyPlan
from fairsynth.errors import ArtefactError, Problem
from fairsynth.schemas import SiteId

LOG = "site.log"

Model = TypeVar("Model", bound=Strict)


class SiteFolder(Strict):
    """`site.json`: who the site is, and where its configuration and tables are."""

    site: SiteId
    config: Path
    data: Path


def read_site_folder(root: Path) -> SiteFolder:
    """`root/site.json`. Raises ArtefactError when it is missing or does not fit."""
    return read_file(root / "site.json", SiteFolder)


def read_plan(root: Path) -> StudyPlan:
    """The plan that this site enrolled for. Raises ArtefactError when there is none."""
    return read_file(root / "plan.json", StudyPlan)


def read_file(path: Path, model: type[Model]) -> Model:
    """A file of the folder. Raises ArtefactError when it is missing or does not fit."""
    if not path.is_file():
        raise ArtefactError.of("missing file of a site folder", where=str(path), do="run the earlier phase first")
    try:
        text = plain_json.read_text(path)
        plain_json.parse(text, where=str(path))
        return model.model_validate_json(text)
    except PydanticError as error:
        keys = sorted({".".join(map(str, detail["loc"])) for detail in error.errors()})
        raise ArtefactError(
            Problem(what="file does not fit its schema", where=str(path), expected=f"valid {keys}")
        ) from None
