"""The verbs, each with the line that `fairsynth --help` has of it: a verb's module is imported when it is called.

In:  arguments.   Out: the command of the verb that they name.
Never: an import that another verb needs; importing all of them takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click
import typer
from typer.core import TyperCommand, TyperGroup

SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "markdown",
}

# As the modules themselves begin: a test compares them.
LINES = {
    "demo": "Simulate a MIMIC-III-shaped and a PIC-shaped hospital, run the federated study, and write the report.",
    "study": (
        "Train one generator over all sites, augment at each, audit on held-out real patients, and write the report."
    ),
    "plan": "Write what all sites of a study agree on: no path, nothing of one site. Its hash names the study.",
    "init-site": "Write commented YAML for a new hospital, as far as headers and the first rows of each table tell.",
    "check": (
        "Check a study and every site's tables, or print the data-quality report of one site; nothing else is written."
    ),
    "doctor": (
        "Check a site: files, network, certificate, clock, key, versions, machine, data, policy; each fault with"
        " its mend."
    ),
    "status": (
        "Show a study's sites, round, last seen, bytes and losses; of a site its ledger, budget and last problems."
    ),
    "metrics": (
        "Serve metrics of a study or of a site until stopped, or write them to a file once. The folder is read"
        " each time."
    ),
    "backup": "Write a backup: one tar with the SHA-256 of each file. A study may run meanwhile. It is not encrypted.",
    "restore": "Check a backup whole, then put it in a new folder. A folder that has something in it is refused.",
    "settle": (
        "Say that the plans given are all that this site approved since the backup; new studies with noise may follow."
    ),
    "approve": (
        "Show what a study would take from this site, then sign its plan; without that the site answers no request"
        " of it."
    ),
    "vocabulary": (
        "Agree on a study's vocabulary and say, site by site, what share of the events it covers and what it"
        " leaves out."
    ),
    "simulate": (
        "Write raw MIMIC-III- or PIC-shaped tables drawn from a known, written-down process (docs/simulator.md)."
    ),
    "extract": "Read a hospital's raw tables by its rules and write MEDS events, all or nothing.",
    "train": "Train a generator on one site's patients, until the validation NLL no longer falls.",
    "generate": "Sample synthetic patients at a site, as MEDS events and as tables in the source's own format.",
    "audit": (
        "Generate, augment, train the predictors and evaluate on held-out real patients, again, without the federation."
    ),
    "report": "Write a report: one HTML file that needs no network.",
    "experiment": (
        "Run the trials that are not there yet, on all cores asked for, and write what all of the folder's trials say."
    ),
    "provision": (
        "Certificates, keys and grants of a consortium, at its coordinator and its sites (docs/provisioning.md)."
    ),
    "policy": "What may leave a site: write the policy, read it (docs/egress.md).",
    "roster": "Who takes part in a masked study: write the list, sign it, check it (docs/masking.md).",
    "ledger": "What left a site: show the list, verify it (docs/egress.md).",
    "release": "The release gate: synthetic patients leave a site after it, or by an officer's name (docs/release.md).",
    "upgrade": "Whether the installed version can go on with a folder (docs/operations.md).",
}


class Verbs(TyperGroup):
    """The group of all verbs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, line in LINES.items()}  # to be listed

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that `args` begin with, and what is left of them."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest


def load(verb: str) -> click.Command:
    """The verb's command, of its module: a function `run`, or a group `app` of several."""
    module = import_module(f"fairsynth.cli.{verb.replace('-', '_')}")
    alone = typer.Typer(**SETTINGS)
    if hasattr(module, "app"):
        alone.add_typer(module.app, name=verb)
    else:
        alone.command(name=verb)(module.run)
    return typer.main.get_group(alone).commands[verb]
