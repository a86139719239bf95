"""The site's folder: who may read it, the keys, the CA's certificate.

In:  the folder.   Out: findings.   Never: a change of a file; a word of what a key or a secret holds.
"""

from __future__ import annotations

import datetime
import os
import stat
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fairsynth.errors import FairSynthError
from fairsynth.governance.identity import PRIVATE, load_identity, read_public
from fairsynth.operations.findings import Finding, failed, ok, refused, warning

CA, NODE_KEY, NODE_PUBLIC, SECRET = "ca.crt", "supernode.key", "supernode.pub", "superexec.secret"
SOON_DAYS = 30  # before a certificate ends
AGAIN = "fairsynth provision install GRANT.json SITE_FOLDER, once more"
ANEW = "fairsynth provision request KIT.json --out SITE_FOLDER --renew"


def folder_finding(folder: Path) -> Finding:
    """Whether the folder is this user's, closed to others, and can be written to."""
    name, status = "folder", folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        return failed(name, f"{folder} is another user's", do="run as the user that runs the site's processes")
    if mode & 0o027:
        return failed(name, f"{folder} is open to others (mode {mode:04o})", do=f"chmod 700 {folder}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        said = f"{folder} cannot be written to: {os.strerror(error.errno or 0)}"
        return failed(name, said, do="free space, or mount the folder writable")
    if mode & 0o050:
        return warning(name, f"{folder} is open to its group (mode {mode:04o})", do=f"chmod 700 {folder}")
    return ok(name, f"mode {mode:04o}, writable")


def key_finding(folder: Path) -> Finding:
    """The key by which the server knows this site's SuperNode."""
    name, path = NODE_KEY, folder / NODE_KEY
    if found := _closed(name, path):
        return found
    try:
        key = load_node_key(path)
    except ValueError:
        return failed(name, "no private key of an elliptic curve, as Flower needs", do=ANEW)
    public = folder / NODE_PUBLIC
    if not public.is_file() or not _same(public.read_bytes(), key):
        return failed(
            name, f"{NODE_PUBLIC} is not its public key", do=f"put back both from a backup, or make a new pair: {ANEW}"
        )
    return ok(name, f"mode 0600, {key.curve.name}")


def identity_finding(folder: Path) -> Finding:
    """The key that signs approvals, the ledger and enrolments."""
    try:
        if load_identity(folder).public != read_public(folder):
            return failed(PRIVATE, "identity.pub is not its public key", do="put back both from a backup")
    except FairSynthError as error:
        return refused(PRIVATE, error)
    return ok(PRIVATE, "mode 0600, Ed25519")


def secret_finding(folder: Path) -> Finding:
    """The secret between the site's SuperNode and the process that runs the app."""
    if found := _closed(SECRET, folder / SECRET):
        return found
    return ok(SECRET, "mode 0600")


def ca_finding(folder: Path, *, now: datetime.datetime) -> Finding:
    """The certificate that the server's must come from."""
    name, path = CA, folder / CA
    if not path.is_file():
        return failed(name, "missing", do=AGAIN)
    try:
        authority = read_ca(path)
    except ValueError:
        return failed(name, "no certificate of a certificate authority", do=AGAIN)
    ends = authority.not_valid_after_utc
    if ends <= now:
        return failed(name, f"ended on {ends:%Y-%m-%d}", do="the coordinator makes a new CA and new grants")
    left = (ends - now).days
    said = f"until {ends:%Y-%m-%d}, SHA-256 {spoken(authority)}"
    if left < SOON_DAYS:
        return warning(name, f"{said}: {left} days left", do="the coordinator makes a new CA and new grants")
    return ok(name, said)


def read_ca(path: Path) -> x509.Certificate:
    """The CA's certificate. Raises ValueError when the file holds none."""
    (authority, *_) = x509.load_pem_x509_certificates(path.read_bytes())
    try:
        basics = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise ValueError(CA) from None
    if not basics.ca:
        raise ValueError(CA)
    return authority


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The SuperNode's key. Raises ValueError when it is none that Flower takes."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(NODE_KEY) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(NODE_KEY)
    return key


def spoken(certificate: x509.Certificate) -> str:
    """The first 128 bits of a certificate's SHA-256, in groups to be read out, as `fairsynth provision` prints them."""
    digits = certificate.fingerprint(hashes.SHA256()).hex()
    return " ".join(digits[start : start + 4] for start in range(0, 32, 4))


def _closed(name: str, path: Path) -> Finding | None:
    """What is wrong with a file that nobody else may read; None where nothing is."""
    try:
        status = path.lstat()
    except OSError:
        return failed(name, "missing", do="fairsynth provision request KIT.json --out SITE_FOLDER makes it")
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return failed(name, "a link, or no file", do="put the file itself here")
    if status.st_uid != os.geteuid():
        return failed(name, "another user's file", do="run as the user that runs the site's processes")
    if mode & 0o177:
        return failed(
            name, f"mode {mode:04o}: others may read it", do=f"chmod 600 {path}; if others may have read it, {ANEW}"
        )
    return None


def _same(public: bytes, key: ec.EllipticCurvePrivateKey) -> bool:
    """Whether the file's content, in OpenSSH's format, is the public half of `key`."""
    try:
        found = serialization.load_ssh_public_key(public.strip())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return found == key.public_key()
