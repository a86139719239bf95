"""`fairsynth study`: a federated study, from raw tables to the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairsynth.cli.console import errors, output
from fairsynth.cli.options import DataOption, JsonOption, parse_data
from fairsynth.cli.plans import read_plan
from fairsynth.cli.progress import StudyProgress
from fairsynth.cli.stopping import how_to_follow, how_to_resume, says_how_to_go_on
from fairsynth.config import read_study
from fairsynth.errors import ConfigError
from fairsynth.experiments.engines import Engine

if TYPE_CHECKING:
    from fairsynth.experiments.study import Reached, Run
    from fairsynth.report.noised import NoisedStudy


def run(
    study: Annotated[Path, typer.Argument(help="The study file (YAML); with --server the plan (JSON).")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run.  [default: runs/<name of the study>]")] = None,
    engine: Annotated[
        Engine, typer.Option(help="Flower's simulation, or real processes on loopback.")
    ] = Engine.simulation,
    data: DataOption = None,
    force: Annotated[bool, typer.Option(help="Replace the results of an earlier run in the same folder.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last committed round; with --server also follow what runs.")
    ] = False,
    server: Annotated[
        Path | None, typer.Option(help="Among hospitals: the server's folder, as `fairsynth provision` made it.")
    ] = None,
    roster: Annotated[Path | None, typer.Option(help="With --server: the roster that every site signed.")] = None,
    address: Annotated[
        str | None, typer.Option(help="With --server: HOST:PORT of the SuperLink itself, past the proxy.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train one generator over all sites, augment at each, audit on held-out real patients, and write the report.

    Example: `fairsynth study studies/mimic3demo_pic.yaml --engine deployment`
    """
    if resume and (force or data):
        raise ConfigError.of(
            "options that do not go together", where="--resume, --force, --data", expected="--resume alone",
            do="a study that goes on keeps the folders and the data that it began with",
        )  # fmt: skip
    if server is None and (roster or address):
        raise ConfigError.of("missing option", where="--roster, --address", expected="--server FOLDER beside them")
    if server is not None:
        from fairsynth.experiments.study import Reached

        reached = Reached(server=server, roster=roster, address=address)
        _execute_network(study, reached, out=out, resume=resume, as_json=as_json)
        return
    execute(study, out=out, engine=engine, data=parse_data(data), force=force, resume=resume, as_json=as_json)


def _execute_network(path: Path, reached: Reached, *, out: Path | None, resume: bool, as_json: bool) -> None:
    """Run or follow a study among hospitals with progress on the terminal, then print its result."""
    from fairsynth.experiments.study import run_among_hospitals

    plan = read_plan(path)
    folder = out or Path("runs") / plan.name
    told = says_how_to_go_on(lambda: how_to_follow(path, reached, out=folder))
    with told, StudyProgress(errors if as_json else output) as progress:
        progress.expect(plan.training.rounds)
        result = run_among_hospitals(plan, reached, out=folder, resume=resume, on_event=progress)
    show(result, as_json=as_json)


def execute(
    study: Path,
    *,
    out: Path | None,
    engine: Engine,
    data: dict[str, Path],
    force: bool,
    as_json: bool,
    resume: bool = False,
) -> None:
    """Run the study with progress on the terminal, then print its result."""
    from fairsynth.experiments.study import resume_study, run_study

    config = read_study(study)
    folder = out or Path("runs") / config.name
    told = says_how_to_go_on(lambda: how_to_resume(study, out=folder, engine=engine))
    with told, StudyProgress(errors if as_json else output) as progress:
        progress.expect(config.training.rounds)
        if resume:
            result = resume_study(study, out=folder, engine=engine, on_event=progress)
        else:
            result = run_study(study, out=folder, engine=engine, data=data, force=force, on_event=progress)
    show(result, as_json=as_json)


def show(result: Run, *, as_json: bool) -> None:
    """Print what the server found, what its sites know beside it, and where the pages are."""
    from fairsynth.cli.summary import show_summary
    from fairsynth.report.noised import is_noised, read_noised
    from fairsynth.report.study import read_finished

    summary = None if is_noised(result.server) else read_finished(result.server).summary
    if as_json:
        told = None if summary is None else json.loads(summary.model_dump_json())
        typer.echo(json.dumps({"report": str(result.report), "summary": told}))
        return
    if summary is None:
        output.print(_charged(read_noised(result.server)), highlight=False)
    else:
        show_summary(summary)
    if result.is_here and (
        summary is None or len(summary.scopes) == 1
    ):  # the server cannot tell, but on this machine sites' folders can
        for line in _own_verdicts(result):
            output.print(line, highlight=False)
    output.print(f"\nreport: [bold]{result.report}[/bold]", highlight=False, soft_wrap=True)
    own = str(result.site(result.plan.roster[0])) if result.is_here else "SITE_FOLDER"
    output.print(f"a hospital's own page: fairsynth report {own}", highlight=False, soft_wrap=True)


def _charged(study: NoisedStudy) -> str:
    charged = study.charged
    return (
        f"epsilon {charged.epsilon:.3g}, delta {charged.delta:.2g} for one patient of one site over the whole study;"
        " results stayed at the sites"
    )


def _own_verdicts(result: Run) -> Iterator[str]:
    """What each site of a local run found out for itself, at the setting of the report's head."""
    from fairsynth.audit.site import kept_changes
    from fairsynth.fairness.verdict import judge
    from fairsynth.federation.plans import THRESHOLDS

    plan = result.plan
    for site in plan.roster:
        for change in kept_changes(result.site(site)):
            if (change.predictor, change.threshold) == (plan.audit.predictors[0], THRESHOLDS[-1]):
                verdict = judge(change.gain, change.f1, change.abs_log_di)
                yield f"{site} (from its own folder), {change.predictor.replace('_', ' ')}: {verdict.text}"
