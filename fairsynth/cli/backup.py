"""`fairsynth backup`: one file of what a server, a site or a coordinator must not lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import JsonOption
from fairsynth.operations.archive import Kind
from fairsynth.operations.backup import backup

SECRET: dict[Kind, str] = {
    "server": "",
    "site": "holds this site's private keys: encrypt it before it leaves this machine, and keep it where they would be",
    "coordinator": (
        "HOLDS ca.key, the authority's private key: who has this file can let anybody in. Encrypt it before it leaves"
        " this machine; keep it in a safe"
    ),
}


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run or its server's folder, a site's, or a coordinator's.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, mode 0600; best on another disk.")],
    with_cohort: Annotated[
        bool,
        typer.Option("--with-cohort", help="Of a site: events, cohort and audit too, which hold patients' records."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a backup: one tar with the SHA-256 of each file. A study may run meanwhile. It is not encrypted.

    Raw tables, keys of masks and noise that was drawn are never in it (docs/operations.md).

    Example: `fairsynth backup runs/lungs --out /backup/lungs.tar`
    """
    made = backup(folder, out, with_cohort=with_cohort)
    if as_json:
        facts = {"kind": made.manifest.kind, "name": made.manifest.name, "files": len(made.manifest.files)}
        typer.echo(json.dumps({"backup": str(out), "sha256": made.sha256, "bytes": made.manifest.bytes, **facts}))
    else:
        size = f"{len(made.manifest.files)} files, {made.manifest.bytes:,} bytes"
        output.print(f"{made.manifest.kind} {made.manifest.name}: {out}, {size}", highlight=False, soft_wrap=True)
        output.print(f"manifest {made.sha256}", highlight=False, soft_wrap=True)
    if warning := SECRET[made.manifest.kind]:
        errors.print(f"{out} {warning}", style="bold red", highlight=False, soft_wrap=True, markup=False)
