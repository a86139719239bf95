"""The terminal: results go to one console, progress and errors to the other."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH = 120  # columns, where there is no terminal to ask

output = Console(width=None if sys.stdout.isatty() else WIDTH)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH)
