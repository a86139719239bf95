"""The coordinator's side: the folder, whom it invites and revokes, the server's certificate.

In:  `consortium.yaml`.   Out: the coordinator's folder, whole or absent; what `show` tells of it.
Never: a change of one site's files because of another; a key that leaves the folder.
"""

from __future__ import annotations

import datetime
import secrets
import shutil
from pathlib import Path
from typing import Any

import bcrypt
import yaml
from cryptography import x509
from pydantic import ValidationError

from fairsynth import artefacts
from fairsynth.config import ConsortiumConfig, ConsortiumSite, read_consortium
from fairsynth.errors import ConfigError, ProvisioningRefused
from fairsynth.provisioning import documents
from fairsynth.provisioning.authority import (
    create_authority,
    fingerprint,
    names_of,
    read_authority,
    read_certificate,
    write_authority,
    write_server,
)
from fairsynth.provisioning.connection import (
    ADMINISTRATOR,
    CONTROL_SECRET,
    CONTROL_USERS,
    SECRET,
    SERVER,
    read_server,
)
from fairsynth.provisioning.records import (
    CONSORTIUM,
    GRANTS,
    KITS,
    SITES,
    SiteRecord,
    held,
    publish,
    read_all,
    write_record,
)
from fairsynth.schemas import SiteId

AUTHORITY_DAYS = 3652
LOCAL = ("localhost", "127.0.0.1")  # the proxy and the ServerApp's process reach the SuperLink there


def init(consortium: Path, folder: Path) -> str:
    """Make the coordinator's folder; the fingerprint of its authority. Raises ConfigError.

    It is made beside its place and then renamed: what a stopped `init` left is removed by the next.
    """
    config = read_consortium(consortium)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError.of("something is here", where=str(folder), expected="a new or empty folder")
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    for name in (SERVER, f"{SERVER}/supernodes", KITS, SITES, GRANTS):
        (unfinished / name).mkdir(mode=0o700)
    sha256 = _fill(unfinished, config)
    unfinished.rename(folder)
    artefacts.sync_folder(folder.parent)
    return sha256


def add(folder: Path, site: str) -> Path:
    """Invite a site, or one that was revoked again; the file with its kit. Raises ConfigError, ProvisioningRefused."""
    with held(folder):
        publish(folder)
        record = read_all(folder).get(SiteId(site))
        if record is not None and record.state != "revoked":
            raise ProvisioningRefused.of(f"site {site} is {record.state}", where=str(folder), expected="a new site")
        config = read_consortium(folder / CONSORTIUM)
        if site not in [entry.site for entry in config.sites]:
            _write_config(folder, _with_site(config, site))
        now = documents.now()
        record = SiteRecord(site=SiteId(site), state="invited", invited=now) if record is None else record
        write_record(folder, record.model_copy(update={"state": "invited", "invited": now}))
    return folder / KITS / f"{site}.kit.json"


def revoke(folder: Path, site: str) -> SiteRecord:
    """Take a site's grant back: its SuperNode key counts no more. Raises ProvisioningRefused."""
    with held(folder):
        publish(folder)
        record = read_all(folder).get(SiteId(site))
        if record is None or record.state == "revoked":
            raise ProvisioningRefused.of(f"site {site} has no grant", where=str(folder), expected="a site that has one")
        used = () if record.supernode_sha256 in (None, *record.former) else (str(record.supernode_sha256),)
        changes = {"state": "revoked", "revoked": documents.now(), "former": (*record.former, *used)}
        record = record.model_copy(update=changes)
        write_record(folder, record)
    return record


def renew_server(folder: Path) -> datetime.datetime:
    """A new key and certificate of the server, by the same authority; until when it is good. Raises ConfigError.

    Names beside the host, and the days, are those that `consortium.yaml` has now.
    """
    with held(folder):
        publish(folder)
        _write_server(folder, read_consortium(folder / CONSORTIUM))
    return read_certificate(folder / SERVER / "server.crt").not_valid_after_utc


def show(folder: Path) -> dict[str, Any]:
    """What there is to know of the consortium, for people and programs; nothing private."""
    with held(folder):
        publish(folder)
        config, records = read_consortium(folder / CONSORTIUM), read_all(folder)
        server = read_server(folder)
        return {
            "consortium": config.name,
            "host": config.server.host,
            "port": config.server.port,
            "authority": {**_validity(read_certificate(folder / "ca.crt"))},
            "certificate": {
                **_validity(read_certificate(server.certificate)),
                "names": list(names_of(read_certificate(server.certificate))),
            },
            "sites": [_shown(record) for record in records.values()],
            "identities": {site: one.identity for site, one in server.granted.items()},
        }


def _fill(folder: Path, config: ConsortiumConfig) -> str:
    """Everything that a new folder has."""
    _write_config(folder, config)
    authority = create_authority(f"FairSynth {config.name} CA", days=AUTHORITY_DAYS)
    write_authority(folder, authority)
    _write_server(folder, config)
    password = secrets.token_urlsafe(32)
    server = folder / SERVER
    artefacts.write_text(server / SECRET, secrets.token_hex(32))
    artefacts.write_text(server / CONTROL_SECRET, password)
    line = f"{ADMINISTRATOR} {bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode()}\n"
    artefacts.write_text(server / CONTROL_USERS, line)
    for entry in config.sites:
        record = SiteRecord(site=entry.site, state="invited", invited=documents.now())
        documents.write(folder / SITES / f"{entry.site}.json", record)
    publish(folder)
    return fingerprint(authority.certificate)


def _write_server(folder: Path, config: ConsortiumConfig) -> None:
    names = (config.server.host, *config.server.also, *LOCAL)
    write_server(folder / SERVER, read_authority(folder), names=names, days=config.certificate_days)


def _with_site(config: ConsortiumConfig, site: str) -> ConsortiumConfig:
    try:
        entry = ConsortiumSite(site=SiteId(site))
    except ValidationError:
        raise ConfigError.of(
            "bad name of a site", where=site, expected="a small letter, then letters, digits, _ or -, 48 in all"
        ) from None
    return config.model_copy(update={"sites": (*config.sites, entry)})


def _write_config(folder: Path, config: ConsortiumConfig) -> None:
    text = yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)
    artefacts.write_text(folder / CONSORTIUM, text)


def _validity(certificate: x509.Certificate) -> dict[str, Any]:
    until, now = certificate.not_valid_after_utc, datetime.datetime.now(datetime.UTC)
    return {
        "sha256": fingerprint(certificate),
        "valid_until": until.isoformat(timespec="seconds"),
        "days_left": max(0, (until - now).days),
        "expired": until <= now,
    }


def _shown(record: SiteRecord) -> dict[str, Any]:
    return {
        "site": record.site,
        "state": record.state,
        "identity": record.grant.identity if record.grant else None,
        "supernode_sha256": record.supernode_sha256,
        "serial": record.serial,
        "invited": record.invited,
        "granted": record.grant.granted if record.grant else None,
        "revoked": record.revoked,
    }
