"""The command line as a whole, and the one place where an exception becomes an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from fairsynth import artefacts
from fairsynth.cli.console import errors
from fairsynth.cli.verbs import SETTINGS, Verbs
from fairsynth.errors import FairSynthError

app = typer.Typer(
    cls=Verbs,
    name="fairsynth",
    help=(
        "Hospitals train one fairness-optimised generator of synthetic patients together; no record leaves home.\n\n"
        "Start with `fairsynth demo`. A study is one YAML file: `fairsynth check STUDY`, then `fairsynth study STUDY`."
    ),
    no_args_is_help=True,
    **SETTINGS,
)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Print the version when it is all that is asked for."""
    if show:
        typer.echo(f"fairsynth {artefacts.code_version()}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. Wrong input: 2, one message. Flower or machine failure: 3. Interrupted: 130;
    a study that is told to end: 143."""
    try:
        app(args=arguments, standalone_mode=True)
    except FairSynthError as error:
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("stopped; finished steps are kept", markup=False)
        sys.exit(130)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - a library's text may hold a value: type and place only, of a panic of
        # polars too, which is no `Exception`
        errors.print(_place(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(3)


def _place(error: BaseException) -> str:
    """Where an unforeseen error happened, without its text; `FAIRSYNTH_DEBUG=1` shows all, for simulated data."""
    if os.environ.get("FAIRSYNTH_DEBUG") == "1":
        return "".join(traceback.format_exception(error))
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "fairsynth" in frame.filename] or frames
    place = f"{ours[-1].filename}:{ours[-1].lineno}" if ours else "unknown place"
    return (
        f"FS-900 unforeseen {type(error).__name__}: {place}\n"
        "  do: report it with this line; on data that may be shown, FAIRSYNTH_DEBUG=1 prints the whole error"
    )
