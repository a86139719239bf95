"""The files of `deploy/`, parsed."""

from __future__ import annotations

import yaml
from units import DEPLOY, UNITS, parsed

SIDES = ("server", "site")
COMPOSE = sorted(DEPLOY.glob("*/compose*.yaml"))
MANIFESTS = sorted(DEPLOY.glob("*/kubernetes/*.yaml"))
TEXTS = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
SHORT = {"ids": lambda path: "-".join(path.parts[-2:])}


def compose(side):
    return yaml.safe_load((DEPLOY / side / "compose.yaml").read_text())


def manifests(side):
    return [one for path in MANIFESTS if side in path.parts for one in yaml.safe_load_all(path.read_text())]


def units():
    return {path.name.removesuffix(".service"): dict(parsed(path)["Service"]) for path in UNITS}
