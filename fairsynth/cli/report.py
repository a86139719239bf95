"""`fairsynth report`: the HTML report of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import output
from fairsynth.experiments.study import Run


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file.  [default: RUN/report.html]")] = None,
) -> None:
    """Write the report of a finished run again: one HTML file that needs no network."""
    from fairsynth.report import build

    result = Run(root=folder.resolve())
    _ = result.plan
    path = build(result.server, out=out or result.report)
    output.print(f"[bold]{path}[/bold]", highlight=False, soft_wrap=True)
