"""`fairsynth restore`: a backup in a new folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import output
from fairsynth.cli.options import JsonOption
from fairsynth.operations.archive import Kind
from fairsynth.operations.restore import restore

NEXT: dict[Kind, str] = {
    "server": "go on: fairsynth study ... --out the folder of the run --resume (docs/resume.md)",
    "site": (
        "studies from before hold no more: fairsynth approve again, or a new plan; studies with noise are refused until"
        " fairsynth settle says which there were since the backup (docs/operations.md)"
    ),
    "coordinator": "where the SuperLink runs: fairsynth provision apply; grants given since the backup are missing",
}


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `fairsynth backup` wrote.")],
    to: Annotated[Path, typer.Option(help="A new or empty folder; of a study, the server's folder itself.")],
    as_json: JsonOption = False,
) -> None:
    """Check a backup whole, then put it in a new folder. A folder that has something in it is refused.

    A site that comes out of a backup says so in its ledger, and goes on with no study that may have moved meanwhile.

    Example: `fairsynth restore /backup/lungs.tar --to runs/lungs/server`
    """
    made = restore(file, to)
    if as_json:
        facts = {"kind": made.manifest.kind, "name": made.manifest.name, "files": len(made.manifest.files)}
        typer.echo(json.dumps({"folder": str(to), "sha256": made.sha256, "versions": made.manifest.versions, **facts}))
        return
    output.print(f"{made.manifest.kind} {made.manifest.name}: {to}", highlight=False, soft_wrap=True)
    output.print(NEXT[made.manifest.kind], highlight=False, soft_wrap=True)
