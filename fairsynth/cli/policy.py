"""`fairsynth policy`: what may leave a site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fairsynth.cli.console import output
from fairsynth.cli.options import JsonOption
from fairsynth.governance.policy import SitePolicy, policy_path, read_policy, write_policy

app = typer.Typer(help="What may leave a site: write the policy, read it (docs/egress.md).", no_args_is_help=True)

ConfigArgument = Annotated[Path, typer.Argument(help="The site's configuration: the folder with site.yaml.")]


@app.command()
def init(config: ConfigArgument) -> None:
    """Write the strict default policy, with a comment to every line, for the site to change.

    Example: `fairsynth policy init site_configs/myhospital`
    """
    path = policy_path(config)
    write_policy(path)
    output.print(f"[bold]{path}[/bold]  read it, then: fairsynth approve", highlight=False, soft_wrap=True)


@app.command()
def show(config: ConfigArgument, as_json: JsonOption = False) -> None:
    """Check the policy and show it: what the site agrees to, and every message that may leave.

    Example: `fairsynth policy show site_configs/pic`
    """
    found = read_policy(config)
    if as_json:
        typer.echo(found.model_dump_json(by_alias=True))
        return
    for line in switches(found):
        output.print(line, highlight=False)
    output.print(_messages(found))


def switches(policy: SitePolicy) -> list[str]:
    """What the site agrees to, a line each."""
    budget = "none kept" if policy.epsilon_budget is None else f"{policy.epsilon_budget:g} (delta {policy.delta:g})"
    return [
        f"sites at least         {policy.minimum_sites}; studies of two: {policy.two_site_studies}",
        f"unmasked records       {policy.unmasked_records}",
        f"a common teacher       {policy.teacher}",
        f"minimum cell           {policy.minimum_cell} patients",
        f"privacy budget         {budget}",
        f"bytes in a study       at most {policy.most_bytes_per_study:,}",
        f"policy hash            {policy.sha256}",
    ]


def _messages(policy: SitePolicy) -> Table:
    table = Table("message", "at most", "bytes", "fields", "arrays", title="what may leave", title_justify="left")
    for kind, rule in policy.messages.items():
        arrays = ", ".join(one.name + (" (masked)" if one.masked == "required" else "") for one in rule.arrays)
        table.add_row(kind, str(rule.at_most), f"{rule.most_bytes:,}", ", ".join(rule.fields), arrays)
    return table
