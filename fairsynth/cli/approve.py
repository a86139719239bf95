"""`fairsynth approve`: an officer of a site lets one study begin there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fairsynth.cli.console import output
from fairsynth.cli.options import JsonOption
from fairsynth.cli.plans import read_plan
from fairsynth.cli.policy import switches
from fairsynth.config import StudyPlan
from fairsynth.errors import ConfigError
from fairsynth.federation import boundary
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance import approval
from fairsynth.governance.identity import PUBLIC
from fairsynth.governance.policy import read_policy


def run(
    site: Annotated[Path, typer.Argument(metavar="SITE_FOLDER", help="The site's folder, with site.json.")],
    plan: Annotated[Path | None, typer.Option(help="The study plan (JSON) that the server sends.")] = None,
    officer: Annotated[str, typer.Option(help="Who approves; it is signed, and stays at the site.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="Show what is approved, and sign nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a study would take from this site, then sign its plan; without that the site answers no request of it.

    The approval holds for this plan, under the present policy, with the present configuration and data; another
    plan, policy or cohort needs another.

    Example: `fairsynth approve site --plan plan.json --officer "Dr. A. Lee"`
    """
    if listed:
        _list(site, as_json=as_json)
        return
    if plan is None or not officer:
        raise ConfigError.of("missing option", where="fairsynth approve", expected="--plan and --officer, or --list")
    study = read_plan(plan)
    place = boundary.place_of(site)
    policy = read_policy(place.config)
    if not as_json:
        output.print(_shown(study))
        output.print(Text("the site's policy:\n  " + "\n  ".join(switches(policy))))
        output.print(Text(f"cohort: {place.data} as {place.config / 'site.yaml'} says"), soft_wrap=True)
    if not yes and (as_json or not typer.confirm(f"Approve at {place.site}, as {officer}?")):
        output.print("nothing was signed")
        raise typer.Exit(1)
    path = boundary.approve(site, study, officer=officer)
    if as_json:
        typer.echo(json.dumps({"approval": str(path), "plan_sha256": plan_sha256(study)}))
        return
    output.print(f"approved: [bold]{path}[/bold]", highlight=False, soft_wrap=True)
    output.print(f"public key of the site: {(site / PUBLIC).read_text(encoding='ascii').strip()}", highlight=False)


_SEEN = {
    "exact": "sums over all sites, masked",
    "noise": "sums over all sites, masked, to which each site adds noise",
    "plain": "this site's own counts and weights, unmasked",
}


def _loss(plan: StudyPlan) -> str:
    """What one patient is charged."""
    privacy = plan.privacy
    if not privacy.noised:
        return "not bounded: no noise"
    return f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g}, over the whole study"


def _used(plan: StudyPlan) -> str:
    """Which groups are not left out."""
    privacy = plan.privacy
    patients = f"of {privacy.minimum_group} training patients or more"
    if privacy.noised:
        return f"{patients}, that stand out of the noise"
    return f"{patients}, at {privacy.minimum_contributing} sites or more"


def _shown(plan: StudyPlan) -> Table:
    """What of a plan matters to privacy."""
    training, teacher = plan.training, plan.augmentation.candidates == "taught"
    table = Table("what", "in this plan", title=f"study {plan.name}", title_justify="left", show_header=False)
    rows = {
        "hash of the plan": plan_sha256(plan),
        "sites": f"{', '.join(plan.roster)}; goes on with {plan.quorum}"
        + (f", not without {', '.join(plan.required)}" if plan.required else ""),
        "what the server sees": _SEEN[plan.privacy.profile],
        "privacy loss of a patient": _loss(plan),
        "groups that are used": _used(plan),
        "agreement": plan.privacy.agreement or "none named",
        "groups": ", ".join(plan.groups.names),
        "outcome": plan.task.name,
        "codes that are named": f"those of at least {plan.vocabulary.minimum_patients} training patients of this site",
        "rounds": f"{training.rounds}, twice: weights and the optimiser's moments leave in each, "
        + ("counts by group with noise in some" if plan.privacy.noised else "and counts by group"),
        "begun primed": "yes: visits with each code, and with two of a run of codes, leave"
        if training.primed
        else "no",
        "common teacher": "yes: sums over patients of pairs of codes leave" if teacher else "no",
        "audit": f"{plan.audit.seeds} seeds of {', '.join(plan.audit.predictors)}: "
        + ("results stay at this site" if plan.privacy.noised else "counts of held-out patients leave"),
        "printed counts": f"none below {plan.audit.minimum_cell}",
    }
    for what, said in rows.items():
        table.add_row(Text(what), Text(said))
    return table


def _list(site: Path, *, as_json: bool) -> None:
    grants = [one.grant for one in approval.list_approvals(site)]
    if as_json:
        typer.echo(json.dumps([grant.model_dump(mode="json", exclude={"plan"}) for grant in grants]))
        return
    table = Table("study", "plan", "officer", "when (UTC)", title="approved studies", title_justify="left")
    for grant in grants:
        table.add_row(
            Text(grant.plan.name), grant.plan_sha256[:12], Text(grant.officer), grant.time[:19].replace("T", " ")
        )
    output.print(table)
