"""`fairsynth settle`: what a restored site took part in between its backup and its return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import output
from fairsynth.cli.options import JsonOption
from fairsynth.cli.plans import read_plan
from fairsynth.operations.restore import settle


def run(
    site: Annotated[Path, typer.Argument(metavar="SITE_FOLDER", help="The site's folder, out of a backup.")],
    officer: Annotated[str, typer.Option(help="Name of the data officer who says so.")],
    plan: Annotated[
        list[Path] | None, typer.Option(help="A plan approved here since the backup; once for each such plan.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say that the plans given are all that this site approved since the backup; new studies with noise may follow.

    Each of them that has noise is charged to the privacy budget in full, and refused from then on: how much of it left
    is not known here. The coordinator's list of studies, and the site's own papers, say which there were.

    Example: `fairsynth settle site --officer "Dr. A. Lin" --plan lungs.json`
    """
    charged = settle(site, [read_plan(path) for path in plan or []], officer=officer)
    if as_json:
        typer.echo(json.dumps({"settled": str(site), "charged": charged}))
        return
    told = f"charged in full: {', '.join(charged)}" if charged else "no plan with noise was charged"
    output.print(f"settled by {officer}; {told}", highlight=False, soft_wrap=True, markup=False)
