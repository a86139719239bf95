"""A certificate authority and the server certificates that it signs (X.509, EC P-256).

In:  names, days.   Out: keys and certificates, and their files.
Never: a private key of a mode other than 0600; a certificate for longer than its authority's.

The authority's key also signs grants. What it signs there begins with `fairsynth.grant/1|`, a certificate with the byte
0x30, so neither signature serves as the other.
"""

from __future__ import annotations

import datetime
import ipaddress
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fairsynth import artefacts
from fairsynth.config import is_address
from fairsynth.errors import KeyRefused, Problem, ProvisioningRefused
from fairsynth.provisioning.permissions import read_private

CA_CERTIFICATE, CA_KEY = "ca.crt", "ca.key"
SERVER_CERTIFICATE, SERVER_KEY = "server.crt", "server.key"
_UNSOUND = (  # what `cryptography` raises of a certificate that parses
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
)
_BACKDATED = datetime.timedelta(minutes=5)  # for clocks that are a little behind


@dataclass(frozen=True, kw_only=True, eq=False)
class Authority:
    """One that can sign certificates and grants."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """Its certificate, as a file has it."""
        return pem_of(self.certificate)

    def sign(self, message: bytes) -> bytes:
        """An ECDSA signature (DER, SHA-256). Begin `message` with what it is for."""
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))


def create_authority(name: str, *, days: int) -> Authority:
    """A new authority whose certificate says `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    certificate = (
        _builder(subject, subject, key.public_key(), days=days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(key=key, certificate=certificate)


def write_authority(folder: Path, authority: Authority) -> None:
    """`ca.key` (0600) and `ca.crt`."""
    artefacts.write_bytes(folder / CA_KEY, _private_bytes(authority.key))
    artefacts.write_bytes(folder / CA_CERTIFICATE, authority.pem)


def read_authority(folder: Path) -> Authority:
    """The authority of `folder`. Raises KeyRefused when its key is missing, open to others, or another's."""
    path = folder / CA_KEY
    key, certificate = _read_key(path), read_certificate(folder / CA_CERTIFICATE)
    if key.public_key() != certificate.public_key():
        raise KeyRefused.of("a key of another certificate", where=str(path), expected=f"that of {CA_CERTIFICATE}")
    return Authority(key=key, certificate=certificate)


def write_server(folder: Path, authority: Authority, *, names: Iterable[str], days: int) -> None:
    """`ca.crt`, `server.key` (0600) and `server.crt`, for these host names and addresses, the first of which it names.

    Of the three the certificate comes last: a server that starts between the two files refuses, and starts again.
    """
    key, (first, *others) = ec.generate_private_key(ec.SECP256R1()), dict.fromkeys(names)
    issuer = authority.certificate
    days = min(days, (issuer.not_valid_after_utc - _now()).days)
    if days < 1:
        raise KeyRefused.of(
            "the authority's certificate ends",
            where=CA_CERTIFICATE,
            do="a new consortium folder, and new grants for all",
        )
    certificate = (
        _builder(_name(first), issuer.subject, key.public_key(), days=days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_subject(name) for name in (first, *others)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    artefacts.write_bytes(folder / CA_CERTIFICATE, authority.pem)
    artefacts.write_bytes(folder / SERVER_KEY, _private_bytes(key))
    artefacts.write_bytes(folder / SERVER_CERTIFICATE, pem_of(certificate))


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in the file `path`. Raises ProvisioningRefused."""
    try:
        return parse_certificate(path.read_bytes(), where=str(path))
    except OSError:
        raise ProvisioningRefused.of("no certificate", where=str(path), expected="a PEM file") from None


def parse_certificate(pem: bytes, *, where: str) -> x509.Certificate:
    """The certificate in `pem`. Raises ProvisioningRefused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", CryptographyDeprecationWarning)  # of what RFC 5280 forbids
            return x509.load_pem_x509_certificate(pem)
    except (ValueError, x509.InvalidVersion, CryptographyDeprecationWarning):
        raise ProvisioningRefused.of("not a certificate", where=where, expected="X.509, PEM") from None


def pem_of(certificate: x509.Certificate) -> bytes:
    """A certificate, as a file has it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it is the certificate of an authority of ours: EC, marked as one, signed by itself."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(certificate)
        key = certificate.public_key()
    except _UNSOUND:
        return False
    return constraints.ca and isinstance(key, ec.EllipticCurvePublicKey)


def signed_by(certificate: x509.Certificate, message: bytes, signature: bytes) -> bool:
    """Whether the authority of `certificate` signed `message`."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def fingerprint(certificate: x509.Certificate) -> str:
    """Hex SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` gives it, without colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names and addresses that a server certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(name.value) for name in names)


def check_server(folder: Path) -> None:
    """Raise ProvisioningRefused where sites would refuse the certificate: expired, of another key or authority."""
    mend = "fairsynth provision renew FOLDER --server, at the coordinator"
    path = folder / SERVER_CERTIFICATE
    certificate, ca = read_certificate(path), read_certificate(folder / CA_CERTIFICATE)
    problems = []
    if _read_key(folder / SERVER_KEY).public_key() != certificate.public_key():
        problems.append(Problem(what=f"certificate of another key than {SERVER_KEY}", where=str(path), do=mend))
    if certificate.not_valid_after_utc <= _now():
        problems.append(Problem(what="certificate has expired", where=str(path), do=mend))
    try:
        certificate.verify_directly_issued_by(ca)
    except _UNSOUND:
        problems.append(Problem(what="certificate of another authority", where=str(path), do=mend))
    if problems:
        raise ProvisioningRefused(problems)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a file. Raises KeyRefused."""
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyRefused.of("not a private key", where=str(path), expected="EC P-256, PKCS8 PEM")
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])  # X.520 allows 64 characters


def _subject(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
