"""`fairsynth init-site`: a first site configuration, guessed from a hospital's tables."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import JsonOption
from fairsynth.errors import EngineError
from fairsynth.federation.engine.app import find_app

if TYPE_CHECKING:
    from fairsynth.onboarding import Outcome


def run(
    data: Annotated[Path, typer.Argument(help="Folder with the raw tables; folders in it are looked at too.")],
    out: Annotated[Path, typer.Option(help="Folder for the four YAML files; must be absent or empty.")],
    name: Annotated[str | None, typer.Option(help="Name of the source.  [default: the folder's name]")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write commented YAML for a new hospital, as far as headers and the first rows of each table tell.

    What is not sure is written as a comment with TODO, for a person to decide. No identifier, date or text of a patient
    is written or shown; a word of the sensitive attribute only if 11 patients carry it.

    Example: `fairsynth init-site raw/myhospital --out site_configs/myhospital`
    """
    from fairsynth.onboarding import init_site

    shipped = _shipped()
    with errors.status("looking at headers and first rows"):
        outcome = init_site(data, out=out, name=name, shipped=shipped)
    if as_json:
        typer.echo(outcome.model_dump_json())
        return
    for config in map(Path, outcome.looks_like):
        known = config.relative_to(shipped) if shipped is not None else config
        output.print(Text(f"this looks like {known}: use {_from_here(config)}"), soft_wrap=True)
    _show(outcome, data)


def _shipped() -> Path | None:
    """The configurations that come with the repository, where this is a clone of it."""
    with suppress(EngineError):
        return find_app() / "site_configs"
    return None


def _from_here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _show(outcome: Outcome, data: Path) -> None:
    table = Table("file", "read as", "codes", title="what the tables were taken for", title_justify="left")
    for found in outcome.tables:
        table.add_row(Text(found.file), Text(found.what), Text("\n".join(found.codes)))
    output.print(table)
    output.print(f"strings of the sensitive attribute written out: {outcome.groups}", highlight=False)
    for todo in outcome.todos:
        output.print(Text(f"TODO {todo}"), soft_wrap=True)
    output.print(f"[bold]{outcome.folder}[/bold]  read it, decide each TODO, then:", highlight=False, soft_wrap=True)
    output.print(f"  fairsynth check {outcome.folder} --data {data}", highlight=False, soft_wrap=True)
