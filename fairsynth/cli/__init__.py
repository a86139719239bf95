"""The command line: one thin file per verb; an entry point reads, calls one library function, and prints.

In:  arguments.   Out: exit code 0, 2 (wrong input, one clear message) or 3 (Flower or the machine failed).
Never: a traceback or a patient's value on the terminal.
"""

from __future__ import annotations

from fairsynth.cli.app import main

__all__ = ["main"]
