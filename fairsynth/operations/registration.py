"""Granted keys into a running SuperLink, replaced and revoked ones out of it.

In:  a provisioned server folder, a SuperLink that runs.   Out: `flwr/registered.json`: which key is which node there.
Never: the administrator's password in an argument, an output or an error; a node of a key that has no grant.

`flwr` lists nodes by number, without name or key, and gives the number once, at registration. So the number is written
down, and before each registration the numbers that are there already: a node that is new after a stop is its node.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fairsynth import artefacts
from fairsynth.config import Strict
from fairsynth.errors import ArtefactError, ConfigError, EngineError
from fairsynth.federation.engine.processes import call, flower_environment, parse_answer
from fairsynth.provisioning import documents
from fairsynth.provisioning.connection import ADMINISTRATOR, ServerFolder, read_server
from fairsynth.provisioning.documents import Hex32, Site
from fairsynth.provisioning.permissions import check_permissions, read_private
from fairsynth.schemas import SiteId

HOME, CONFIG, REGISTERED = "flwr", "config.toml", "registered.json"
GONE = frozenset({"unregistered", "deleted"})  # states of a node whose key Flower takes no more

NodeNumber = str  # up to 64 bits without sign: as text, which every JSON reader keeps


class Node(Strict):
    """A key that was registered."""

    site: Site
    node: NodeNumber
    state: Literal["registered", "unregistered"] = "registered"


class Pending(Strict):
    """A registration that was begun."""

    site: Site
    supernode_sha256: Hex32
    there: tuple[NodeNumber, ...]  # nodes before it


class Registered(Strict):
    """`registered.json`."""

    schema_: Literal["fairsynth.registered/1"] = Field(default="fairsynth.registered/1", alias="schema")
    nodes: dict[Hex32, Node] = {}  # by fingerprint of the key
    pending: Pending | None = None


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What one `apply` did."""

    registered: tuple[SiteId, ...]
    unregistered: tuple[SiteId, ...]
    unchanged: tuple[SiteId, ...]


def apply(folder: Path, *, address: str | None = None) -> Applied:
    """Bring the SuperLink's keys in line with `server.json`.

    `address` is that of the SuperLink itself, on loopback, where no password is asked for; None: of the proxy, with it.
    Raises ArtefactError, ConfigError, KeyRefused, EngineError.
    """
    if address is not None and "@" in address:  # arguments are open to all users of the machine
        raise ConfigError.of("address with a password", where="--address", expected="HOST:PORT")
    folder = folder.resolve()  # Flower's programs run in a folder of their own
    server = read_server(folder)
    check_permissions(folder, "server" if server.folder == folder else "coordinator")
    home, wanted = folder / HOME, {one.supernode_sha256: site for site, one in server.granted.items()}
    home.mkdir(mode=0o700, exist_ok=True)
    with artefacts.guarded(home):
        desk = _Desk(home=home, server=server, address=address)
        desk.open()
        desk.settle()
        unregistered = desk.unregister_all_but(wanted)
        desk.refuse_unknown()
        registered = [site for sha256, site in wanted.items() if desk.register(site, sha256)]
    return Applied(
        registered=tuple(registered),
        unregistered=tuple(unregistered),
        unchanged=tuple(site for site in server.granted if site not in registered),
    )


@dataclass(kw_only=True)
class _Desk:
    """A connection to the SuperLink, and what was written down of it."""

    home: Path
    server: ServerFolder
    address: str | None
    book: Registered = field(init=False, default_factory=Registered)
    nodes: dict[NodeNumber, str] = field(init=False, default_factory=dict)  # of the SuperLink, and their states

    def open(self) -> None:
        """The private FLWR_HOME with its connection, the book, and the SuperLink's nodes."""
        address = self.address or f"{ADMINISTRATOR}:{self._secret}@{self.server.facts.address}"
        settings = {"address": address, "root-certificates": str(self.server.ca.resolve())}
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        name = self.server.facts.consortium
        text = "\n".join(["[superlink]", f'default = "{name}"', "", f"[superlink.{name}]", *lines, ""])
        artefacts.write_text(self.home / CONFIG, text)
        path = self.home / REGISTERED
        if path.is_file():
            self.book = documents.read(path, Registered, error=ArtefactError)
        self.nodes = {str(one["node-id"]): str(one["status"]) for one in self._flwr("list")["nodes"]}

    def settle(self) -> None:
        """Find out whether a registration that was stopped took place."""
        pending = self.book.pending
        if pending is not None:
            new = [node for node in self._unknown() if node not in pending.there]
            self._note(pending, new[0] if len(new) == 1 else None)

    def refuse_unknown(self) -> None:
        """Raise EngineError when the SuperLink lets in nodes that are not in the book, so nobody could revoke them."""
        if unknown := self._unknown():
            raise EngineError.of(
                "nodes that `apply` did not register", where=f"SuperLink: {', '.join(unknown)}",
                expected=f"those of {self.home / REGISTERED}",
                do="flwr supernode unregister NODE; if the list was lost: docs/provisioning.md",
            )  # fmt: skip

    def unregister_all_but(self, wanted: dict[str, SiteId]) -> list[SiteId]:
        """Unregister every key of the book that is not wanted; the sites they were of."""
        sites = []
        for sha256, one in list(self.book.nodes.items()):
            live = self._is_live(one.node)
            if sha256 in wanted or (one.state == "unregistered" and not live):
                continue
            if live:  # of one that was unregistered before, too: an older database of the SuperLink knows it again
                self._flwr("unregister", one.node)
                self.nodes[one.node] = "unregistered"
            self._write({**self.book.nodes, sha256: one.model_copy(update={"state": "unregistered"})})
            sites.append(one.site)
        return sites

    def register(self, site: SiteId, sha256: str) -> bool:
        """Register a site's key, unless it is. Raises EngineError when Flower takes it no more."""
        known = self.book.nodes.get(sha256)
        if known is not None and self._is_live(known.node):
            return False
        if known is not None and known.node in self.nodes:  # one that is not there at all was of another database
            raise EngineError.of(
                "a granted key was unregistered by hand", where=f"site {site}, node {known.node}",
                do="Flower takes no key twice: the site renews its key with `fairsynth provision request --renew`",
            )  # fmt: skip
        pending = Pending(site=site, supernode_sha256=sha256, there=tuple(self.nodes))
        self._write(self.book.nodes, pending)
        answer = self._flwr("register", str(self.server.supernode(site).resolve()), "--name", site)
        node = str(answer["node-id"])
        self._note(pending, node)
        self.nodes[node] = "registered"
        return True

    def _note(self, pending: Pending, node: NodeNumber | None) -> None:
        new = {} if node is None else {pending.supernode_sha256: Node(site=pending.site, node=node)}
        self._write({**self.book.nodes, **new})

    def _write(self, nodes: dict[str, Node], pending: Pending | None = None) -> None:
        self.book = Registered(nodes=nodes, pending=pending)
        documents.write(self.home / REGISTERED, self.book)

    def _unknown(self) -> list[NodeNumber]:
        known = {one.node for one in self.book.nodes.values()}
        return [node for node in self.nodes if self._is_live(node) and node not in known]

    def _is_live(self, node: NodeNumber) -> bool:
        return node in self.nodes and self.nodes[node] not in GONE

    def _flwr(self, verb: str, *arguments: str) -> dict[str, Any]:
        """The answer of `flwr supernode VERB`. Raises EngineError, without the password."""
        command: Sequence[str] = ("flwr", "supernode", verb, *arguments[:1], self.server.facts.consortium)
        reach = (self.server.facts.host,)
        text = call(
            *command,
            *arguments[1:],
            "--format",
            "json",
            home=self.home,
            environment=flower_environment(self.home, reach=reach),
            secret=self._secret,
        )
        answer = parse_answer(text.replace(self._secret, "***") if self._secret else text)
        if not answer.get("success"):
            raise EngineError.of(
                f"flwr supernode {verb} failed",
                where=self.address or self.server.facts.address,
                expected=" ".join(str(answer.get("error-message", answer)).split()),
                do="is the SuperLink running, and the address right? see docs/provisioning.md",
            )
        return answer

    @property
    def _secret(self) -> str:
        """The administrator's password; empty where it is not asked for, and so need not be there."""
        if self.address is not None:
            return ""
        return read_private(self.server.control_secret).decode("ascii").strip()
