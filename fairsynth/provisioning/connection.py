"""What server and site are started from, as provisioning left it.

In:  a server's or a site's folder.   Out: `ServerFolder`, `Connection`.
Never: a private key; a folder that is half provisioned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from fairsynth.config import Name, Strict
from fairsynth.config.consortium import Host
from fairsynth.errors import ArtefactError
from fairsynth.provisioning import documents
from fairsynth.provisioning.authority import CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY
from fairsynth.provisioning.documents import Hex32, Port, Site, Time
from fairsynth.schemas import SiteId

SERVER, SERVER_FILE = "server", "server.json"
CONNECTION = "connection.json"
SUPERNODE_KEY, SUPERNODE_PUBLIC = "supernode.key", "supernode.pub"
SECRET = "superexec.secret"  # noqa: S105  a file's name
CONTROL_USERS, CONTROL_SECRET = "control.users", "control.secret"
ADMINISTRATOR = "admin"


class Connection(Strict):
    """`connection.json`: where a site's SuperNode goes, by which grant."""

    schema_: Literal["fairsynth.connection/1"] = Field(default="fairsynth.connection/1", alias="schema")
    consortium: Name
    site: Site
    host: Host
    port: Port
    granted: Time
    serial: PositiveInt
    versions: dict[str, str] = {}  # of the software at the coordinator when it granted

    @property
    def address(self) -> str:
        """HOST:PORT, as Flower's programs take it."""
        return address(self.host, self.port)


class ServerSite(Strict):
    """A site that has, or had, a grant."""

    supernode_sha256: Hex32
    identity: Hex32
    state: Literal["granted", "revoked"]


class ServerFacts(Strict):
    """`server.json`: whom the server serves."""

    schema_: Literal["fairsynth.server/1"] = Field(default="fairsynth.server/1", alias="schema")
    consortium: Name
    host: Host
    port: Port
    sites: dict[SiteId, ServerSite]

    @property
    def address(self) -> str:
        """HOST:PORT, as sites reach it."""
        return address(self.host, self.port)


@dataclass(frozen=True, kw_only=True)
class ServerFolder:
    """The part of a coordinator's folder that the server is started from."""

    folder: Path
    facts: ServerFacts

    @property
    def granted(self) -> dict[SiteId, ServerSite]:
        """The sites that may take part, sorted."""
        return {site: one for site, one in sorted(self.facts.sites.items()) if one.state == "granted"}

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.folder / CA_CERTIFICATE

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.folder / SERVER_CERTIFICATE

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.folder / SERVER_KEY

    @property
    def superexec_secret(self) -> Path:
        """What SuperLink and SuperExec share."""
        return self.folder / SECRET

    @property
    def control_users(self) -> Path:
        """The proxy's line for the administrator: name and bcrypt hash."""
        return self.folder / CONTROL_USERS

    @property
    def control_secret(self) -> Path:
        """The administrator's password."""
        return self.folder / CONTROL_SECRET

    def supernode(self, site: SiteId) -> Path:
        """A site's public SuperNode key."""
        return self.folder / "supernodes" / f"{site}.pub"


def address(host: str, port: int) -> str:
    """`host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_connection(site: Path) -> Connection:
    """The connection of the site at `site`. Raises ArtefactError when no grant was installed there."""
    path = site / CONNECTION
    if not path.is_file():
        raise ArtefactError.of(
            "site without a grant", where=str(path), do="fairsynth provision install GRANT.json SITE_FOLDER"
        )
    return documents.read(path, Connection, error=ArtefactError)


def read_server(folder: Path) -> ServerFolder:
    """The server's part of `folder`: a coordinator's folder, or a copy of its `server/` alone. Raises ArtefactError."""
    for place in (folder, folder / SERVER):
        if (place / SERVER_FILE).is_file():
            facts = documents.read(place / SERVER_FILE, ServerFacts, error=ArtefactError)
            return ServerFolder(folder=place, facts=facts)
    raise ArtefactError.of(
        "no server folder", where=str(folder), expected=SERVER_FILE, do="fairsynth provision init makes one"
    )
