"""A document that is walked through: its commands are run, its files written and changed, its outputs compared.

```console                 commands after `$ `, each followed by what it prints; `| tail -N` keeps the last lines
```yaml riverside.yaml     a file that the reader writes
```diff riverside.yaml     what the reader changes in it: the lines with - become those with +

python tests/docs/walk.py docs/new-hospital.md      writes the outputs anew
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from fairsynth.cli import main

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(console|yaml|diff)(?: (\S+))?\n(.*?)^```$", re.M | re.S)


def walk(text: str) -> str:
    """`text` with the outputs that its commands really have, in the current folder."""
    return FENCE.sub(lambda block: f"{_head(block)}{_body(block)}```", text)


def _head(block: re.Match[str]) -> str:
    return f"```{block[1]}{' ' + block[2] if block[2] else ''}\n"


def _body(block: re.Match[str]) -> str:
    kind, name, body = block.groups()
    if kind == "console":
        commands = [line.removeprefix("$ ") for line in body.splitlines() if line.startswith("$ ")]
        return "".join(f"$ {command}\n{_run(command)}" for command in commands)
    if kind == "yaml" and name:
        Path(name).write_text(body, encoding="utf-8")
    elif kind == "diff":
        _change(Path(name), body)
    return body


def _run(command: str) -> str:
    """What a command prints, and its exit code where it is not 0."""
    command, _, tail = command.partition(" | tail -")
    program, *arguments = shlex.split(command)
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        if program == "fairsynth":
            code = _fairsynth(arguments)
        elif program == "python":
            _python(arguments)
        elif program == "cat":
            said.write("".join(Path(name).read_text(encoding="utf-8") for name in arguments))
        elif program in ("cp", "chmod"):
            subprocess.run([program, *arguments], check=True)
        else:
            raise ValueError(f"the walk knows no {program}")
    lines = [line.rstrip() for line in said.getvalue().splitlines()]
    lines = lines[-int(tail) :] if tail else lines
    return "".join(f"{line}\n" for line in [*lines, *([f"(exit code {code})"] if code else [])])


def _fairsynth(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def _python(arguments: list[str]) -> None:
    before, sys.argv = sys.argv, arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        sys.argv = before


def _change(path: Path, body: str) -> None:
    lines = body.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in "- ")
    new = "".join(line[1:] for line in lines if line[0] in "+ ")
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path} does not have these lines, once:\n{old}")
    path.write_text(text.replace(old, new), encoding="utf-8")


def in_clone(document: Path) -> str:
    """Walk a document of the repository in an empty folder that has its docs."""
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            Path("docs").symlink_to(ROOT / "docs")
            return walk(document.read_text(encoding="utf-8"))
        finally:
            os.chdir(before)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(in_clone(Path(name).resolve()), encoding="utf-8")
