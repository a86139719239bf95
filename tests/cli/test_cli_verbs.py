"""What `fairsynth --help` says without importing the verbs, and what a command imports before it answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from federation_toys import InProcess, toy_plan, toy_sites
from governed_toys import site_of

import fairsynth.cli
from fairsynth.cli.app import app
from fairsynth.cli.verbs import LINES, load
from fairsynth.federation.rounds import run_study

sys.path.append(str(Path(__file__).resolve().parents[1] / "provisioning"))
from consortium_stories import CONSORTIUM

PARTS = (
    "app",
    "console",
    "options",
    "plans",
    "progress",
    "quality",
    "stopping",
    "summary",
    "verbs",
)  # of the command line, no verbs
HEAVY = ("flwr", "matplotlib", "pandas", "polars", "pyarrow", "ray", "scipy", "sklearn", "torch")
# Runs commands in one process; to each its exit code, and what it was the first to import of the packages above.
RUNS = f"""
import contextlib, io, json, sys
from fairsynth.cli import main
before = set()
for arguments in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main(arguments)
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
    heavy = [name for name in {HEAVY} if name in sys.modules and name not in before]
    before.update(heavy)
    print(json.dumps([arguments, code, heavy]))
"""


def run(*commands: tuple[object, ...]) -> list[tuple[list[str], int, list[str]]]:
    told = json.dumps([[str(one) for one in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", RUNS], input=told, capture_output=True, text=True, check=True)
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(found) == len(commands), done.stderr
    return found


def test_every_module_that_is_no_part_of_the_command_line_is_a_verb():
    modules = {path.stem for path in Path(fairsynth.cli.__file__).parent.glob("[a-z]*.py")}
    assert {name.replace("_", "-") for name in modules.difference(PARTS)} == set(LINES)


@pytest.mark.parametrize("verb", LINES)
def test_the_list_of_verbs_says_of_each_what_its_own_help_begins_with(verb):
    first, *_ = (load(verb).help or "").split("\n\n")
    assert " ".join(first.split()) == LINES[verb]


@pytest.mark.parametrize("verb", LINES)
def test_what_is_called_is_the_verbs_own_command(verb):
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(click.Context(group), [verb, "--help"])
    assert (name, rest) == (verb, ["--help"])
    assert [one.name for one in command.params] == [one.name for one in load(verb).params]
    assert command.help == load(verb).help


def test_no_help_imports_what_a_study_needs():
    commands = [("--version",), ("--help",), *((verb, "--help") for verb in LINES)]
    assert [(code, heavy) for _, code, heavy in run(*commands)] == [(0, [])] * len(commands)


def test_what_administrators_ask_imports_nothing_that_a_study_needs(tmp_path):
    plan = toy_plan()
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / "run" / "server")
    server, site = tmp_path / "run", site_of(tmp_path, plan).root
    (tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    (tmp_path / "consortium.yaml").write_text(CONSORTIUM)
    hub, boston = tmp_path / "hub", tmp_path / "boston"
    found = run(
        ("status", server),
        ("status", server, "--json", "--watch"),
        ("metrics", server, "--textfile", tmp_path / "server.prom"),
        ("backup", server, "--out", tmp_path / "server.tar"),
        ("restore", tmp_path / "server.tar", "--to", tmp_path / "restored"),
        ("upgrade", "check", server),
        ("policy", "show", site / "config"),
        ("approve", site, "--plan", tmp_path / "plan.json", "--officer", "Dr. A. Lee", "--yes"),
        ("approve", site, "--list"),
        ("ledger", "show", site),
        ("ledger", "verify", site),
        ("status", site, "--supernode-port", "9"),
        ("metrics", site, "--textfile", tmp_path / "site.prom"),
        ("provision", "init", tmp_path / "consortium.yaml", "--out", hub),
        ("provision", "request", hub / "kits" / "boston.kit.json", "--out", boston),
        ("provision", "accept", hub, boston / "request.json", "--yes"),
        ("provision", "show", hub),
        ("provision", "check", hub),
    )
    assert found == [(arguments, 0, []) for arguments, _, _ in found]


def test_a_site_is_examined_without_what_only_its_tables_need(tmp_path):
    site = site_of(tmp_path, toy_plan()).root
    ((_, code, heavy),) = run(("doctor", site, "--quick"))
    assert (code, heavy) == (2, ["torch"])  # it has joined no consortium; torch is asked for a GPU
