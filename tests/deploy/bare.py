"""The bare form of a deployment on loopback: what the systemd units start, proxy and all, below one temporary folder.

In:  a folder that stands for the root of the hosts.   Out: running processes, and the way of `flwr` to them.
Never: a command that the units do not have; a process that outlives the block; a port that others could reach.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from units import DEPLOY, PROGRAMS, service

from fairsynth.federation.engine.processes import (
    LOOPBACK,
    Workshop,
    free_ports,
    listens,
    stop,
    tail,
    wait_for,
)
from fairsynth.federation.engine.strays import stop_strays
from fairsynth.federation.engine.study import SUPERLINK, write_connection
from fairsynth.provisioning.authority import create_authority, write_server
from fairsynth.provisioning.node_keys import write_node_key

PATIENCE = 180.0  # seconds; many processes may start at once on few cores
PASSWORD = "a password of the tests: 100 %/?#"
URL_PASSWORD = "a%20password%20of%20the%20tests%3A%20100%20%25%2F%3F%23"


@dataclass(kw_only=True)
class Bare:
    """A server and its sites; use as a context manager."""

    host: Path
    port: int = field(init=False)
    superlink_port: int = field(init=False)
    _running: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)
    _homes: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.port, self.superlink_port = free_ports(2)
        self.etc = self.host / "etc" / "fairsynth"
        self.keys = self.etc / "server"
        self.keys.mkdir(parents=True, mode=0o700)
        write_certificates(self.keys, host=LOOPBACK)
        write_secret(self.keys / "superexec.secret")
        (self.keys / "control.users").write_text(f"admin {hashed(PASSWORD)}\n")
        for name in ("Caddyfile", "flower.env"):
            shutil.copy(DEPLOY / "server" / name, self.etc)
        self.configure_server()

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)
        for home in self._homes:
            stop_strays(Path(home))

    def configure_server(self, **changes: str) -> None:
        """Write `server.env` as it is shipped, with the ports of this test."""
        values = {
            "FAIRSYNTH_HOST": LOOPBACK,
            "FAIRSYNTH_LISTEN": LOOPBACK,
            "FAIRSYNTH_PORT": str(self.port),
            "FAIRSYNTH_SUPERLINK_PORT": str(self.superlink_port),
            **changes,
        }
        (self.etc / "server.env").write_text(changed((DEPLOY / "server" / "server.env").read_text(), values))

    def start_server(self) -> None:
        """SuperLink, proxy and SuperExec; returns when the proxy says that the SuperLink is well."""
        self.start("server", "fairsynth-superlink")
        self.start("server", "fairsynth-superexec")
        self.start_proxy()
        superlink = self._running["fairsynth-superlink"]
        wait_for(self.healthy, seconds=PATIENCE, what="SuperLink behind the proxy", process=superlink)

    def start_proxy(self) -> None:
        """The proxy; returns when it listens."""
        proxy = self.start("server", "fairsynth-proxy")
        wait_for(lambda: listens(self.port), seconds=PATIENCE, what="proxy", process=proxy)

    def healthy(self) -> bool:
        """Whether /health answers 200 through the proxy."""
        context = ssl.create_default_context(cafile=self.keys / "ca.crt")
        with contextlib.suppress(urllib.error.URLError, OSError):
            url = f"https://{LOOPBACK}:{self.port}/health"
            return urllib.request.urlopen(url, context=context, timeout=5).status == 200
        return False

    def site_folder(self, site: str) -> Path:
        """The folder of a site on its host."""
        folder = self.host / "var" / "lib" / "fairsynth" / "sites" / site
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def provide_site(self, site: str, *, server: str | None = None) -> Path:
        """Give a site its keys, the CA and its environment file; returns its public key, to be registered."""
        folder = self.site_folder(site)
        public = folder / "supernode.pub"
        write_node_key(folder / "supernode.key", public)
        write_secret(folder / "superexec.secret")
        shutil.copy(self.keys / "ca.crt", folder)
        values = {"FAIRSYNTH_SERVER": server or f"{LOOPBACK}:{self.port}", "FAIRSYNTH_NODE_PORT": str(free_ports(1)[0])}
        path = self.etc / "sites" / f"{site}.env"
        path.parent.mkdir(exist_ok=True)
        path.write_text(changed((DEPLOY / "site" / "site.env").read_text(), values))
        return public

    def start_site(self, site: str) -> None:
        """A site's SuperNode, and its SuperExec when the SuperNode has reached the server."""
        supernode = self.start("site", "fairsynth-supernode@", site)
        port = int(next(one for one in supernode.args if one.startswith("--port=")).partition("=")[2])
        wait_for(lambda: listens(port), seconds=PATIENCE, what=f"SuperNode of {site}", process=supernode)
        self.start("site", "fairsynth-superexec@", site)

    def start(self, side: str, unit: str, instance: str = "", *, without: str = "-") -> subprocess.Popen[bytes]:
        """Start a unit in a process group of its own; its output goes to a log below the host's folder.

        `without` is an option that a test leaves out.
        """
        ready = service(DEPLOY / side / "systemd" / f"{unit}.service", host=self.host, instance=instance)
        self._homes.add(ready.environment.get("FLWR_HOME", "nowhere"))
        with self.log_path(ready.name).open("ab") as output:
            process = subprocess.Popen(
                [word for word in ready.command if not word.startswith(f"{without}=")],
                cwd=ready.folder,
                env=ready.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[ready.name] = process
        return process

    def stop(self, name: str) -> None:
        """Stop one service, as systemd would: politely, then by force."""
        stop(self._running.pop(name))

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """A service that was started."""
        return self._running[name]

    def log_path(self, name: str) -> Path:
        return self.host / f"{name}.log"

    def log(self, name: str) -> str:
        """All that a service said."""
        return self.log_path(name).read_text(encoding="utf-8", errors="replace")

    def connect(self, desk: Workshop, *, password: str = URL_PASSWORD) -> None:
        """Give the coordinator's `flwr` its connection through the proxy, in a file of its own alone."""
        settings = desk.home / "config.toml"
        settings.touch(mode=0o600)
        address = f"admin:{password}@{LOOPBACK}:{self.port}"
        write_connection(desk, address=address, root_certificates=str(self.keys / "ca.crt"))

    def register(self, desk: Workshop, site: str, public: Path) -> None:
        """What the coordinator does with a site's public key."""
        desk.call("flwr", "supernode", "register", str(public), SUPERLINK, "--name", site, "--format", "json")

    def until(self, name: str, said: str) -> None:
        """Wait until a service that runs has said something."""
        process = self._running[name]
        try:
            wait_for(lambda: said in self.log(name), seconds=PATIENCE, what=f"{name}: {said}", process=process)
        except Exception:
            print(tail(self.log(name)))
            raise

    def ended(self, name: str) -> int:
        """The exit code of a service that is to end by itself."""
        return self._running[name].wait(timeout=PATIENCE)


def write_certificates(folder: Path, *, host: str) -> None:
    """`ca.crt`, `server.crt` and `server.key` of an authority that nobody else knows."""
    write_server(folder, create_authority("Tests", days=7), names=[host], days=7)


def hashed(password: str) -> str:
    """The bcrypt hash that Caddy's `basic_auth` takes."""
    command = [PROGRAMS / "caddy", "hash-password"]
    return subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, check=True).stdout.strip()


def write_secret(path: Path) -> None:
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))


def changed(text: str, values: dict[str, str]) -> str:
    """An environment file with other values; every one of them must be in it."""
    lines = text.splitlines()
    names = [line.partition("=")[0] for line in lines]
    missing = set(values) - set(names)
    assert not missing, f"not in the file: {missing}"
    lines = [f"{name}={values[name]}" if name in values else line for name, line in zip(names, lines, strict=True)]
    return "\n".join(lines) + "\n"
