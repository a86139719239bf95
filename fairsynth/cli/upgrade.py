"""`fairsynth upgrade`: whether the installed version can go on with a folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import output
from fairsynth.cli.doctor import MUST_BE_MENDED, show_findings
from fairsynth.cli.options import JsonOption
from fairsynth.operations.upgrade import examine

SCHEMA = "fairsynth.upgrade/1"

app = typer.Typer(
    help="Whether the installed version can go on with a folder (docs/operations.md).", no_args_is_help=True
)


@app.callback()
def group() -> None:
    """Whether the installed version can go on with a folder."""


@app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run or its server's folder, a site's, or a coordinator's.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Compare a folder with the installed version: an unfinished study, files that it cannot read. Exit code 0 or 2.

    Install the new version beside the present one, and ask with its own command. Nothing in the folder changes.

    Example: `fairsynth upgrade check runs/lungs`
    """
    findings = list(examine(folder))
    number = sum(finding.state == "failed" for finding in findings)
    if as_json:
        told = {"schema": SCHEMA, "failed": number, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(told))
    else:
        show_findings(findings)
        output.print(
            "this version must not go on with the folder" if number else "this version can go on with the folder",
            highlight=False,
        )
    if number:
        raise typer.Exit(MUST_BE_MENDED)
