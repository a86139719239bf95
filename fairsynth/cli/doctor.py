"""`fairsynth doctor`: what is right and what is wrong at a site, before a study needs it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import JsonOption
from fairsynth.operations.doctor import SUPERNODE_PORT, examine
from fairsynth.operations.findings import Finding

SCHEMA = "fairsynth.doctor/1"
MUST_BE_MENDED = 2  # exit code
STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def run(
    site: Annotated[Path, typer.Argument(metavar="SITE_FOLDER", help="The site's folder, with site.json.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read the tables, which takes minutes if large.")
    ] = False,
    supernode_port: Annotated[
        int, typer.Option(help="Where this site's SuperNode listens on loopback.")
    ] = SUPERNODE_PORT,
    as_json: JsonOption = False,
) -> None:
    """Check a site: files, network, certificate, clock, key, versions, machine, data, policy; each fault with its mend.

    Run it as the user that runs the site's processes. It needs no root, opens no port, changes nothing, and connects to
    the server of `connection.json` and nothing else. The exit code is 2 if something failed, 0 otherwise.

    Example: `fairsynth doctor site`
    """
    findings = []
    with errors.status("looking") as status:
        for finding in examine(site, supernode_port=supernode_port, tables=not quick):
            findings.append(finding)
            status.update(f"looking; {len(findings)} checks made")
    number = sum(finding.state == "failed" for finding in findings)
    if as_json:
        typer.echo(
            json.dumps({"schema": SCHEMA, "failed": number, "findings": [asdict(finding) for finding in findings]})
        )
    else:
        show_findings(findings)
        warnings = sum(finding.state == "warning" for finding in findings)
        said = f"{number} failed, {warnings} warnings, of {len(findings)} checks (docs/doctor.md)"
        output.print(said, highlight=False)
    if number:
        raise typer.Exit(MUST_BE_MENDED)


def show_findings(findings: list[Finding]) -> None:
    """Print a table: each finding, and what to do about it."""
    table = Table("check", "", "found", title_justify="left", show_lines=False)
    for finding in findings:
        said = Text(finding.said)
        if finding.do:
            said.append(f"\ndo: {finding.do}", style="bold" if finding.state == "failed" else "")
        table.add_row(Text(finding.name), Text(finding.state, style=STYLES[finding.state]), said)
    output.print(table)
