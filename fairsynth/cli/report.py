"""`fairsynth report`: the HTML report of a finished run, or a site's own page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import output


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of a finished run, or of a site that took part in one.")
    ],
    out: Annotated[Path | None, typer.Option(help="The HTML file.  [default: FOLDER/report.html]")] = None,
) -> None:
    """Write a report: one HTML file that needs no network.

    Of a run, it says what the server knows, again. Of a site's folder, it is that hospital's own page, with its exact
    counts and its verdict: for its eyes alone.

    Example: `fairsynth report runs/demo/sites/zhejiang`
    """
    from fairsynth.experiments.study import Run
    from fairsynth.report import build, build_own
    from fairsynth.report.at_home import is_site_folder

    root = folder.resolve()
    if is_site_folder(root):
        path = build_own(root, out=out or root / "report.html")
    else:
        result = Run(root=root)
        _ = result.plan
        path = build(result.server, out=out or result.report)
    output.print(f"[bold]{path}[/bold]", highlight=False, soft_wrap=True)
