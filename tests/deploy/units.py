"""What a systemd unit would run: its command, environment and folders, read from the file that is shipped.

In:  a unit file of `deploy/`, an instance, a folder that stands for the host's root.   Out: a `Service`.
Never: a setting that the unit does not have; the environment of the tests.
"""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = Path(sys.executable).parent
UNITS = sorted((*DEPLOY.glob("server/systemd/*.service"), *DEPLOY.glob("site/systemd/*.service")))
MANY = {"EnvironmentFile", "Environment", "LoadCredential", "ExecStartPre", "Wants", "After", "DeviceAllow"}


@dataclass(frozen=True, kw_only=True)
class Service:
    """A unit, ready to start without systemd."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path


class _Settings(dict):
    """Repeated settings are joined by lines where systemd takes all of them; else the last one counts, as there."""

    def __setitem__(self, key, value):
        if key in MANY and key in self and isinstance(value, list):
            value = [*self[key], *value]
        super().__setitem__(key, value)


def parsed(unit: Path) -> configparser.RawConfigParser:
    """The sections and settings of a unit file."""
    parser = configparser.RawConfigParser(
        strict=False, dict_type=_Settings, delimiters=("=",), comment_prefixes=("#", ";"), interpolation=None
    )
    parser.optionxform = str
    parser.read_string(unit.read_text(encoding="utf-8").replace("\\\n", " "))
    return parser


def variables(path: Path) -> dict[str, str]:
    """An EnvironmentFile."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}


def service(unit: Path, *, host: Path, instance: str = "") -> Service:
    """The unit as systemd would start it, were `host` the root of the file system. Makes its folders."""
    settings = parsed(unit)["Service"]
    name = unit.name.replace("@", f"@{instance}").removesuffix(".service")
    specifiers = {"%i": instance, "%S": "/var/lib", "%t": "/run", "%C": "/var/cache"}

    def filled(text: str) -> str:
        return re.sub(r"%[a-zA-Z]", lambda found: specifiers[found[0]], text)

    def on_host(text: str) -> str:
        """Paths of the unit, below `host`; programs come from the environment of the tests."""
        text = text.replace("/opt/fairsynth/bin/", f"{PROGRAMS}/")
        return re.sub(r"(?<![\w}/])/(etc/fairsynth|var/lib|run|var/cache)(?=[/\"]|$)", rf"{host}/\1", text)

    def made(text: str, *, mode: int) -> Path:
        path = Path(on_host(text))
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        path.chmod(mode)
        return path

    credentials = made(f"/run/credentials/{name}", mode=0o700)
    environment = {"PATH": f"{PROGRAMS}:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    environment |= {"CREDENTIALS_DIRECTORY": str(credentials), "TMPDIR": str(made("/run/tmp", mode=0o700))}
    for line in lines(settings, "EnvironmentFile"):
        environment |= variables(Path(on_host(filled(line))))
    for line in lines(settings, "Environment"):
        environment |= dict(one.split("=", 1) for one in shlex.split(on_host_words(filled(line), on_host)))
    for line in lines(settings, "LoadCredential"):
        credential, _, source = filled(line).partition(":")
        target = credentials / credential
        shutil.copyfile(on_host(source), target)
        target.chmod(0o400)
    if runtime := settings.get("RuntimeDirectory"):
        environment["RUNTIME_DIRECTORY"] = str(made(f"/run/{filled(runtime)}", mode=0o700))
    if state := settings.get("StateDirectory"):
        environment["STATE_DIRECTORY"] = str(made(f"/var/lib/{filled(state)}", mode=0o700))
    command = [on_host(substituted(filled(word), environment)) for word in shlex.split(settings["ExecStart"])]
    folder = Path(on_host(filled(settings["WorkingDirectory"]))) if "WorkingDirectory" in settings else host
    return Service(name=name, command=tuple(command), environment=environment, folder=folder)


def lines(settings: configparser.SectionProxy, name: str) -> list[str]:
    """All values of a setting that may be there more than once."""
    return settings.get(name, "").split("\n") if name in settings else []


def on_host_words(text: str, on_host) -> str:
    return re.sub(r"=(/[^ ]*)", lambda found: "=" + on_host(found[1]), text)


def substituted(word: str, environment: dict[str, str]) -> str:
    """`word` with systemd's `${NAME}`; a name that is not set is a fault of the unit here, not an empty word."""
    return re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], word)
