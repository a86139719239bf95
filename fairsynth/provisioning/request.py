"""The site's side: keys made at home, a request that proves them, a grant that is checked before it is installed.

In:  a kit, a grant.   Out: in the site's folder keys, `request.json`, then `ca.crt` and `connection.json`.
Never: a private key outside the folder; a grant that the kit's authority did not sign for these very keys.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fairsynth import artefacts, plain_json
from fairsynth.errors import ConfigError, ProvisioningRefused
from fairsynth.governance.identity import PRIVATE, Identity, ensure_identity, load_identity
from fairsynth.provisioning import documents, node_keys
from fairsynth.provisioning.authority import (
    CA_CERTIFICATE,
    fingerprint,
    is_authority,
    parse_certificate,
    read_certificate,
    signed_by,
)
from fairsynth.provisioning.connection import (
    CONNECTION,
    SECRET,
    SUPERNODE_KEY,
    SUPERNODE_PUBLIC,
    Connection,
    read_connection,
)
from fairsynth.provisioning.documents import Grant, Kit, Request, Signatures
from fairsynth.provisioning.permissions import check_permissions

REQUEST = "request.json"
NEW_KEY = f"{SUPERNODE_KEY}.new"  # a renewal's, until its grant is installed


def read_kit(path: Path) -> tuple[Kit, str]:
    """The kit, and the fingerprint of its authority. Raises ProvisioningRefused."""
    kit = documents.read(path, Kit)
    certificate = parse_certificate(kit.ca_pem.encode(), where=f"{path}: ca_pem")
    if not is_authority(certificate):
        raise ProvisioningRefused.of("certificate of no authority", where=f"{path}: ca_pem", do="ask for the kit again")
    return kit, fingerprint(certificate)


def make_request(kit_path: Path, folder: Path, *, renew: bool = False) -> Request:
    """Make the keys that are not there yet in `folder`, and `request.json`, signed with both.

    With `renew`, of a new SuperNode key beside the present one; the site's identity stays. Asked again before the grant
    is there, it signs for the same keys. Raises ProvisioningRefused, KeyRefused, ConfigError.
    """
    kit, ca_sha256 = read_kit(kit_path)
    _open_folder(folder, kit)
    if renew and not (folder / PRIVATE).exists():  # the SuperNode's own key may be lost, this one not
        raise ConfigError.of("a site without an identity renews nothing", where=str(folder), do="leave --renew out")
    identity = load_identity(folder) if renew else ensure_identity(folder)
    key = _ensure_key(folder, renew=renew)
    if not (folder / SECRET).exists():
        artefacts.write_text(folder / SECRET, secrets.token_hex(32))
    request = _signed(kit, identity=identity, key=key, ca_sha256=ca_sha256, renew=renew)
    documents.write(folder / REQUEST, request)
    return request


def install(grant_path: Path, folder: Path) -> Connection:
    """Check the grant, put a renewed key in its place, then write `ca.crt` and `connection.json`.

    A grant that is installed already changes nothing. Raises ProvisioningRefused, KeyRefused, ConfigError.
    """
    check_permissions(folder, "site")
    if not (folder / REQUEST).is_file():
        raise ConfigError.of(
            "a site that asked for nothing",
            where=str(folder),
            expected=REQUEST,
            do="fairsynth provision request KIT.json",
        )
    grant, request = documents.read(grant_path, Grant), documents.read(folder / REQUEST, Request)
    _check_grant(grant, request, where=str(grant_path))
    _check_keys(grant, folder, where=str(grant_path))
    new = folder / NEW_KEY
    if new.exists() and node_keys.public_line(node_keys.read_node_key(new)) == grant.supernode:
        new.replace(folder / SUPERNODE_KEY)  # from here on the site is the renewed one; the rest can be written again
        artefacts.sync_folder(folder)
    artefacts.write_text(folder / SUPERNODE_PUBLIC, grant.supernode + "\n")
    artefacts.write_bytes(folder / CA_CERTIFICATE, grant.ca_pem.encode())
    connection = Connection(
        consortium=grant.consortium,
        site=grant.site,
        host=grant.host,
        port=grant.port,
        granted=grant.granted,
        serial=grant.serial,
    )
    documents.write(folder / CONNECTION, connection)
    return connection


def _open_folder(folder: Path, kit: Kit) -> None:
    """Make the folder, private to this user; one that is there must be this site's, and in order."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    check_permissions(folder, "site")
    named = plain_json.read(folder / "site.json") if (folder / "site.json").is_file() else {}
    if isinstance(named, dict) and named.get("site", kit.site) != kit.site:
        raise ProvisioningRefused.of(
            "kit of another site", where=str(folder / "site.json"), expected=f"the folder of {kit.site}"
        )
    if (folder / CONNECTION).exists() and read_connection(folder).consortium != kit.consortium:
        raise ProvisioningRefused.of(
            "kit of another consortium",
            where=str(folder / CONNECTION),
            expected=f"the folder of a site of {kit.consortium}",
            do=f"another folder, or delete {CONNECTION} when the other one is over",
        )


def _ensure_key(folder: Path, *, renew: bool) -> ec.EllipticCurvePrivateKey:
    """The key to ask for: a renewal's is kept beside the present one until its grant is installed."""
    path = folder / (NEW_KEY if renew else SUPERNODE_KEY)
    key = node_keys.read_node_key(path) if path.exists() else node_keys.write_node_key(path)
    if not renew:
        artefacts.write_text(folder / SUPERNODE_PUBLIC, node_keys.public_line(key) + "\n")
    return key


def _signed(kit: Kit, *, identity: Identity, key: ec.EllipticCurvePrivateKey, ca_sha256: str, renew: bool) -> Request:
    request = Request(
        consortium=kit.consortium,
        site=kit.site,
        identity=identity.public.hex(),
        supernode=node_keys.public_line(key),
        ca_sha256=ca_sha256,
        renewal=renew,
        nonce=secrets.token_hex(32),
        time=documents.now(),
    )
    signatures = Signatures(
        identity=identity.sign(request.signed).hex(), supernode=node_keys.sign(key, request.signed).hex()
    )
    return request.model_copy(update={"signatures": signatures})


def _check_grant(grant: Grant, request: Request, *, where: str) -> None:
    """Raise ProvisioningRefused unless the authority of this site's kit signed it, for this site."""
    certificate = parse_certificate(grant.ca_pem.encode(), where=f"{where}: ca_pem")
    if fingerprint(certificate) != request.ca_sha256:
        raise ProvisioningRefused.of(
            "grant of another authority", where=where, expected="the certificate that came with the kit",
            do="compare fingerprints with the coordinator by telephone",
        )  # fmt: skip
    if not signed_by(certificate, grant.signed, bytes.fromhex(grant.signature or "")):
        raise ProvisioningRefused.of("grant without a valid signature", where=where, do="ask for the grant again")
    if (grant.consortium, grant.site) != (request.consortium, request.site):
        raise ProvisioningRefused.of(
            f"grant of {grant.consortium}, site {grant.site}",
            where=where,
            expected=f"{request.consortium}, site {request.site}",
        )


def _check_keys(grant: Grant, folder: Path, *, where: str) -> None:
    """Raise ProvisioningRefused unless the grant names this site's own keys and is not older than the installed one."""
    own = [folder / name for name in (SUPERNODE_KEY, NEW_KEY) if (folder / name).exists()]
    lines = [node_keys.public_line(node_keys.read_node_key(path)) for path in own]
    if load_identity(folder).public.hex() != grant.identity or grant.supernode not in lines:
        raise ProvisioningRefused.of(
            "grant for other keys", where=where, expected="the keys in this folder",
            do="send the coordinator this folder's request.json",
        )  # fmt: skip
    if not (folder / CONNECTION).exists() or not (folder / CA_CERTIFICATE).exists():
        return
    installed = fingerprint(read_certificate(folder / CA_CERTIFICATE))
    same = installed == fingerprint(parse_certificate(grant.ca_pem.encode(), where=where))
    if same and read_connection(folder).serial > grant.serial:  # another authority counts anew
        raise ProvisioningRefused.of("an older grant", where=where, expected="the latest that the coordinator sent")
