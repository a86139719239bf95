"""FairSynth: hospitals train one fairness-optimised generator of synthetic patients together; no record leaves home."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairsynth.halo import HALO

__all__ = ["HALO"]


def __getattr__(name: str) -> Any:
    """`HALO`, when it is first asked for: importing torch takes seconds, importing the package must not."""
    if name == "HALO":
        return import_module("fairsynth.halo").HALO
    raise AttributeError(f"module 'fairsynth' has no attribute {name!r}")
