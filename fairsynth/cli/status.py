"""`fairsynth status`: where a running study stands, at its server or at a site."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fairsynth.cli.console import output
from fairsynth.cli.options import JsonOption
from fairsynth.errors import ConfigError
from fairsynth.operations.doctor import SUPERNODE_PORT
from fairsynth.operations.folders import find_folder
from fairsynth.operations.server_status import ServerStatus, is_over, seconds_since, server_status
from fairsynth.operations.site_status import SiteStatus, site_status

SCHEMA = "fairsynth.status/1"
WATCH_SECONDS = 2.0
STYLES = {"running": "green", "finished": "green", "stopped": "yellow", "waiting": "yellow", "failed": "bold red"}

Status = ServerStatus | SiteStatus


def run(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run or its server's folder, or a site's.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, of a study until it ends.")] = False,
    supernode_port: Annotated[
        int, typer.Option(help="Of a site: where its SuperNode listens on loopback.")
    ] = SUPERNODE_PORT,
    as_json: JsonOption = False,
) -> None:
    """Show a study's sites, round, last seen, bytes and losses; of a site its ledger, budget and last problems.

    Only read, never waited for: the study does not notice. Without a terminal, `--watch` prints a line for each change.

    Example: `fairsynth status runs/lungs --watch`
    """
    found = find_folder(folder)
    if found.kind == "coordinator":
        raise ConfigError.of("no study in a coordinator's folder", where=str(folder), do="fairsynth provision show")

    def look() -> Status:
        if found.kind == "server":
            return server_status(found.root)
        return site_status(found.root, supernode_port=supernode_port)

    if watch:
        _watch(look, as_json=as_json)
    elif as_json:
        typer.echo(_json(look()))
    else:
        output.print(_shown(look()))


def _watch(look: Callable[[], Status], *, as_json: bool) -> None:
    """Until the study ends; of a site until it is interrupted."""
    if output.is_terminal and not as_json:
        with Live(_shown(status := look()), console=output, auto_refresh=False) as live:
            while not _ends(status):
                time.sleep(WATCH_SECONDS)
                live.update(_shown(status := look()), refresh=True)
        return
    before = ""
    while True:
        status = look()
        line = _json(status) if as_json else _line(status)
        now = _line(status)
        if now != before:
            typer.echo(line)
            before = now
        if _ends(status):
            return
        time.sleep(WATCH_SECONDS)


def _ends(status: Status) -> bool:
    return isinstance(status, ServerStatus) and is_over(status)


def _json(status: Status) -> str:
    kind = "server" if isinstance(status, ServerStatus) else "site"
    return json.dumps({"schema": SCHEMA, "kind": kind, **asdict(status)})


def _line(status: Status) -> str:
    """One line, without anything that moves by itself."""
    if isinstance(status, SiteStatus):
        supernode = "SuperNode up" if status.supernode else "no SuperNode"
        last = f"last {status.last_kind} {_when(status.last_answer)}" if status.last_answer else "nothing left yet"
        return f"{status.site}: {status.study or 'no study'}; {status.ledger_entries} lines, {last}; {supernode}"
    rounds = ", ".join(f"{arm} {done}/{status.planned[arm]}" for arm, done in status.rounds.items())
    parts = [f"{status.study}: {status.state} {status.code}".rstrip(), f"rounds {rounds}"]
    if status.state == "running" and status.phase:
        parts.append(f"{status.phase}: {status.answered} of {status.expected} sites answered")
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    if status.nll_validation is not None:
        parts.append(f"validation NLL {status.nll_validation:.3f}")
    if status.refused:
        parts.append(f"{status.refused} refused")
    return "; ".join(parts)


def _shown(status: Status) -> RenderableType:
    return _server(status) if isinstance(status, ServerStatus) else _site(status)


def _server(status: ServerStatus) -> RenderableType:
    facts = _facts(f"study {status.study}")
    facts.add_row("state", Text(f"{status.state} {status.code}".rstrip(), style=STYLES[status.state]))
    facts.add_row("plan", f"{status.plan_sha256[:12]}, profile {status.profile}")
    facts.add_row("started", _when(status.started))
    waiting = f", until {_when(status.deadline)}" if status.deadline else ""
    facts.add_row("asked", f"{status.phase} at {_when(status.asked)}{waiting}" if status.phase else "nothing yet")
    facts.add_row("answered", f"{status.answered} of {status.expected} sites")
    for arm, done in status.rounds.items():
        facts.add_row(f"rounds, {arm}", f"{done} of {status.planned[arm]}")
    took = "" if status.last_round_seconds is None else f", took {_span(status.last_round_seconds)}"
    facts.add_row("last round", f"committed {_ago(status.last_commit)}{took}")
    if status.seconds_left is not None:
        facts.add_row("training left", f"about {_span(status.seconds_left)}, by the last rounds")
    facts.add_row("losses", _losses(status))
    facts.add_row("refused, resumed", f"{status.refused} replies, {status.restarts} times")
    if status.epsilon is not None:
        facts.add_row("privacy", f"epsilon {status.epsilon:.3g}, delta {status.delta:.2g} for one patient, in all")
    facts.add_row("disk", f"{_size(status.disk_used)} used, {_size(status.disk_free)} free")
    sites = Table("site", "last seen", "", "took", "received", "sent", title_justify="left")
    for one in status.sites:
        said = "waited for" if one.waited_for else one.code
        took = "" if one.seconds is None else _span(one.seconds)
        row = (one.site, _ago(one.last_seen), said, took, _size(one.received_bytes), _size(one.sent_bytes))
        sites.add_row(*map(Text, row))
    return Group(facts, sites)


def _site(status: SiteStatus) -> RenderableType:
    facts = _facts(f"site {status.site}")
    plan = f"{status.study}, plan {(status.plan_sha256 or '')[:12]}, profile {status.profile}"
    facts.add_row("study", plan if status.study else "none yet")
    last = f"{status.last_kind}, {_ago(status.last_answer)}" if status.last_answer else "never"
    facts.add_row("last answer", last)
    head = f", last hash {status.ledger_head[:12]}" if status.ledger_head else ""
    facts.add_row("ledger", f"{status.ledger_entries} lines{head}; {_size(status.sent_bytes)} left")
    if status.ledger_fault:
        facts.add_row("", Text(f"altered: {status.ledger_fault}", style="bold red"))
    if status.epsilon_spent is not None and status.epsilon_limit is not None:
        left = max(status.epsilon_limit - status.epsilon_spent, 0.0)
        facts.add_row("budget", f"epsilon {status.epsilon_spent:.3g} of {status.epsilon_limit:g}, {left:.3g} left")
    if status.restored:
        settled = "settled" if status.settled else "not settled: studies with noise are refused"
        facts.add_row("restored", f"from a backup, {_ago(status.restored)}; {settled}")
    facts.add_row("SuperNode", status.supernode_said)
    facts.add_row("disk", f"{_size(status.disk_free)} free")
    if not status.troubles:
        return facts
    troubles = Table("when (UTC)", "phase", "code", "problem", title="site.log, last lines", title_justify="left")
    for one in status.troubles:
        troubles.add_row(*map(Text, (_when(one.time), one.phase, one.code, one.what)))
    return Group(facts, troubles)


def _facts(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    return table


def _losses(status: ServerStatus) -> str:
    loss = "none" if status.loss is None else f"{status.loss:.4f}"
    nll = "none" if status.nll_validation is None else f"{status.nll_validation:.3f} nats a visit"
    return f"L_F {loss}; validation NLL {nll}"


def _when(moment: str | None) -> str:
    return "never" if moment is None else moment[:19].replace("T", " ")


def _ago(moment: str | None) -> str:
    return "never" if moment is None else f"{_when(moment)}, {_span(seconds_since(moment))} ago"


def _span(seconds: float) -> str:
    whole = max(int(seconds), 0)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"


def _size(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
