"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairsynth.errors import ConfigError

DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data", help="SITE=FOLDER: where a site's raw tables are; overrides the study file.", metavar="SITE=FOLDER"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


def parse_data(values: list[str] | None) -> dict[str, Path]:
    """`["boston=/data"]` as a mapping. Raises ConfigError."""
    folders: dict[str, Path] = {}
    for value in values or []:
        site, separator, folder = value.partition("=")
        if not (site and separator and folder):
            raise ConfigError.of("bad option", where=f"--data {value}", expected="SITE=FOLDER")
        folders[site] = Path(folder)
    return folders
