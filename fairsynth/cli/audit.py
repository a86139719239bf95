"""`fairsynth audit`: the four approaches again, at one site of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairsynth.cli.console import errors
from fairsynth.cli.options import JsonOption


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    site: Annotated[str | None, typer.Option(help="One site on this machine.  [default: each]")] = None,
    as_json: JsonOption = False,
) -> None:
    """Generate, augment, train the predictors and evaluate on held-out real patients, again, without the federation.

    Example: `fairsynth audit runs/demo --site zhejiang`
    """
    from fairsynth.cli.summary import show_summary
    from fairsynth.experiments.audit import audit
    from fairsynth.experiments.study import Run

    result = Run(root=folder.resolve())
    with errors.status("training the predictors of the four approaches"):
        summary = audit(result, site=site)
    if as_json:
        typer.echo(summary.model_dump_json())
        return
    show_summary(summary)
