"""Decisions that a configuration leaves open: lines with TODO, as `fairsynth init-site` writes them.

In:  a folder of a site configuration.   Out: `Todo`s, findings.
Never: a line outside the folder's own YAML files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairsynth.config import Strict
from fairsynth.errors import Problem
from fairsynth.quality.findings import Finding, warning

_TODO = re.compile(r"\bTODO\b:?\s*(.*)")
SHOWN_CHARACTERS = 160


class Todo(Strict):
    """One open decision."""

    file: str
    line: int
    text: str


def open_todos(folder: Path) -> tuple[Todo, ...]:
    """The lines with TODO in a configuration's files, in order."""
    return tuple(todo for path in sorted(folder.glob("*.yaml")) for todo in _of_file(path))


def todo_findings(todos: Sequence[Todo]) -> Iterator[Finding]:
    """One warning for each."""
    for todo in todos:
        yield warning(
            f"TODO left open: {todo.text}", where=f"{todo.file}:{todo.line}", do="decide, then remove the line"
        )


def todo_problems(todos: Sequence[Todo]) -> list[Problem]:
    """The same, beside the error of a configuration that does not load."""
    return [Problem(what="TODO left open", where=f"{todo.file}:{todo.line}", do=todo.text) for todo in todos]


def _of_file(path: Path) -> Iterator[Todo]:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if (found := _TODO.search(line)) is not None:
            said = found[1].strip() if "#" in line[: found.start()] else ""
            text = said or f"a name is missing in `{line.split('#')[0].strip()}`"
            yield Todo(file=path.name, line=number, text=text[:SHOWN_CHARACTERS])
