"""The three files that travel: kit (to the site), request (to the coordinator), grant (to the site).

In:  JSON.   Out: frozen models and the bytes that are signed of them.
Never: a private key or a secret; a file that is believed because of where it lies.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field, PositiveInt
from pydantic import ValidationError as PydanticError

from fairsynth import artefacts, plain_json
from fairsynth.config import Name, Strict
from fairsynth.config.consortium import Host
from fairsynth.errors import FairSynthError, ProvisioningRefused
from fairsynth.schemas import SiteId

MAXIMUM_BYTES = 65_536

Site = Annotated[SiteId, Field(pattern=r"^[a-z][a-z0-9_-]{0,47}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Der = Annotated[str, Field(pattern=r"^([0-9a-f]{2}){8,160}$")]  # an ECDSA signature


def _is_time(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$"), AfterValidator(_is_time)]

Document = TypeVar("Document", bound=Strict)


class Kit(Strict):
    """What the coordinator gives a site: where the server is, and the certificate that signs for it."""

    schema_: Literal["fairsynth.kit/1"] = Field(default="fairsynth.kit/1", alias="schema")
    consortium: Name
    site: Site
    host: Host
    port: Port
    ca_pem: str


class Signatures(Strict):
    """A request's: one by each of the site's private keys."""

    identity: Hex64
    supernode: Der


class Request(Strict):
    """What a site asks for, and the proof that it holds both keys."""

    PURPOSE: ClassVar[str] = "fairsynth.request/1"
    schema_: Literal["fairsynth.request/1"] = Field(default="fairsynth.request/1", alias="schema")
    consortium: Name
    site: Site
    identity: Hex32  # the Ed25519 public key that rosters name
    supernode: str  # the ECDSA public key, a line of OpenSSH
    ca_sha256: Hex32  # of the kit's certificate: shows a kit that was exchanged on the way
    renewal: bool  # of the SuperNode's key alone
    nonce: Hex32
    time: Time
    signatures: Signatures | None = None

    @property
    def signed(self) -> bytes:
        """What both keys sign."""
        return _signed(self.PURPOSE, self, "signatures")

    @property
    def sha256(self) -> str:
        """The hash of what is signed: names the request."""
        return artefacts.sha256_json(self.model_dump(mode="json", by_alias=True, exclude={"signatures"}))


class Grant(Strict):
    """What the coordinator lets a site do, signed with the key of the consortium's authority."""

    PURPOSE: ClassVar[str] = "fairsynth.grant/1"
    schema_: Literal["fairsynth.grant/1"] = Field(default="fairsynth.grant/1", alias="schema")
    consortium: Name
    site: Site
    host: Host
    port: Port
    identity: Hex32
    supernode: str
    request_sha256: Hex32
    serial: PositiveInt  # of this site's grants; a site installs none that is older than what it has
    granted: Time
    ca_pem: str
    signature: Der | None = None

    @property
    def signed(self) -> bytes:
        """What the authority signs."""
        return _signed(self.PURPOSE, self, "signature")


def read(path: Path, model: type[Document], *, error: type[FairSynthError] = ProvisioningRefused) -> Document:
    """The JSON file at `path` as `model`. Raises `error`."""
    if not path.is_file():
        raise error.of("missing file", where=str(path), do="check the path")
    text = plain_json.read_text(path, error=error, maximum=MAXIMUM_BYTES)
    try:
        return model.model_validate(plain_json.parse(text, where=str(path), error=error))
    except PydanticError as wrong:
        keys = sorted({".".join(map(str, detail["loc"])) or "(top level)" for detail in wrong.errors()})
        schema = model.model_fields["schema_"].default
        raise error.of(f"not a file of {schema}", where=str(path), expected=f"valid {', '.join(keys)}") from None


def write(path: Path, document: Strict) -> None:
    """Write `document` to `path`, atomically; a file that has it already stays as it is."""
    text = json.dumps(document.model_dump(mode="json", by_alias=True), indent=2, sort_keys=True) + "\n"
    if not path.is_file() or path.read_bytes() != text.encode():
        artefacts.write_text(path, text)


def spoken(digest: str) -> str:
    """The first 32 digits of a hash in groups of four, to be read out: 128 bits."""
    return " ".join(digest[start : start + 4] for start in range(0, 32, 4))


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _signed(purpose: str, document: Strict, left_out: str) -> bytes:
    content: dict[str, Any] = document.model_dump(mode="json", by_alias=True, exclude={left_out})
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{purpose}|{text}".encode()
