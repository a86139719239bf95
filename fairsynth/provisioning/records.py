"""What a coordinator knows of each site, and the files that follow from it.

In:  the coordinator's folder.   Out: `sites/<site>.json`; from these kits, grants, public keys and `server.json`.
Never: a file of one site that changes because of another; a followed file that says more than its record.

A record is written in one step and is what counts. The files that follow are written after it, and again by the next
command should one have been stopped in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt

from fairsynth import artefacts
from fairsynth.config import ConsortiumConfig, Strict, read_consortium
from fairsynth.errors import ArtefactError, ConfigError
from fairsynth.provisioning import documents, node_keys
from fairsynth.provisioning.authority import CA_CERTIFICATE, pem_of, read_certificate
from fairsynth.provisioning.connection import SERVER, SERVER_FILE, ServerFacts, ServerSite
from fairsynth.provisioning.documents import Grant, Hex32, Kit, Site, Time
from fairsynth.provisioning.permissions import check_permissions
from fairsynth.schemas import SiteId

CONSORTIUM = "consortium.yaml"
SITES, KITS, GRANTS = "sites", "kits", "grants"


class SiteRecord(Strict):
    """`sites/<site>.json`."""

    schema_: Literal["fairsynth.provisioned/1"] = Field(default="fairsynth.provisioned/1", alias="schema")
    site: Site
    state: Literal["invited", "granted", "revoked"]
    invited: Time
    revoked: Time | None = None
    serial: NonNegativeInt = 0  # of the last grant
    grant: Grant | None = None  # the last one
    former: tuple[Hex32, ...] = ()  # SuperNode keys that never count again; Flower takes none back either

    @property
    def supernode_sha256(self) -> str | None:
        """The fingerprint of the SuperNode key that was granted last."""
        return None if self.grant is None else node_keys.fingerprint(self.grant.supernode)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The coordinator's folder, for one command at a time. Raises ArtefactError, KeyRefused."""
    if not (folder / CONSORTIUM).is_file():
        raise ArtefactError.of(
            "no coordinator's folder", where=str(folder), expected=CONSORTIUM, do="fairsynth provision init makes one"
        )
    check_permissions(folder, "coordinator")
    with artefacts.guarded(folder):
        yield


def read_all(folder: Path) -> dict[SiteId, SiteRecord]:
    """The records of all sites, by id."""
    paths = sorted((folder / SITES).glob("*.json"))
    records = [documents.read(path, SiteRecord, error=ArtefactError) for path in paths]
    return {record.site: record for record in records}


def write_record(folder: Path, record: SiteRecord) -> None:
    """Write the record, then what follows from all records."""
    documents.write(folder / SITES / f"{record.site}.json", record)
    publish(folder)


def publish(folder: Path) -> None:
    """Write the files that follow from the records; those that are right already stay untouched. Raises ConfigError."""
    config, records = _read_config(folder), read_all(folder)
    ca_pem = pem_of(read_certificate(folder / CA_CERTIFICATE)).decode()
    for record in records.values():
        documents.write(folder / KITS / f"{record.site}.kit.json", kit_of(config, record.site, ca_pem=ca_pem))
        _publish_keys(folder, record)
    facts = ServerFacts(
        consortium=config.name, host=config.server.host, port=config.server.port, sites=_served(records)
    )
    documents.write(folder / SERVER / SERVER_FILE, facts)


def _read_config(folder: Path) -> ConsortiumConfig:
    """`consortium.yaml`. Raises ConfigError when it says something else than what sites were given."""
    config, path = read_consortium(folder / CONSORTIUM), folder / SERVER / SERVER_FILE
    facts = documents.read(path, ServerFacts, error=ArtefactError) if path.is_file() else None
    said = (config.name, config.server.host, config.server.port)
    if facts is not None and said != (facts.consortium, facts.host, facts.port):
        raise ConfigError.of(
            "name, host or port changed",
            where=str(folder / CONSORTIUM),
            expected=f"{facts.consortium}, {facts.address}: the sites were given these",
            do="change it back; for another server, a new folder with `fairsynth provision init`, and new grants",
        )
    return config


def kit_of(config: ConsortiumConfig, site: SiteId, *, ca_pem: str) -> Kit:
    """The kit for a site."""
    return Kit(consortium=config.name, site=site, host=config.server.host, port=config.server.port, ca_pem=ca_pem)


def _publish_keys(folder: Path, record: SiteRecord) -> None:
    grant, public = folder / GRANTS / f"{record.site}.grant.json", folder / SERVER / "supernodes" / f"{record.site}.pub"
    if record.state == "granted" and record.grant is not None:
        documents.write(grant, record.grant)
        line = record.grant.supernode + "\n"
        if not public.is_file() or public.read_text(encoding="ascii") != line:
            artefacts.write_text(public, line)
    else:
        grant.unlink(missing_ok=True)
        public.unlink(missing_ok=True)


def _served(records: dict[SiteId, SiteRecord]) -> dict[SiteId, ServerSite]:
    return {
        site: ServerSite(
            supernode_sha256=node_keys.fingerprint(record.grant.supernode),
            identity=record.grant.identity,
            state="granted" if record.state == "granted" else "revoked",
        )
        for site, record in records.items()
        if record.grant is not None
    }
