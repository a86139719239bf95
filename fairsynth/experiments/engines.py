"""How a study's federation can run on one machine."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """How the federation runs on this machine."""

    simulation = "simulation"  # Flower's simulation engine: one process pool
    deployment = "deployment"  # a real SuperLink and one SuperNode per site, on loopback
