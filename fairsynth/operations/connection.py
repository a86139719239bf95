"""`connection.json`: which server a site takes part at.

In:  the site's folder.   Out: `Connection`.   Never: a key; an address that no name or IP address can be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic import ValidationError as PydanticError

from fairsynth import plain_json
from fairsynth.config import Strict
from fairsynth.errors import ArtefactError
from fairsynth.schemas import SiteId

NAME = "connection.json"

Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")]  # a name, or an IPv4 or IPv6 address


class Connection(Strict):
    """`connection.json`, as `fairsynth provision install` writes it."""

    schema_: Literal["fairsynth.connection/1"] = Field(alias="schema")
    consortium: str
    site: SiteId
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]
    granted: str
    serial: str | int
    versions: dict[str, str] = {}  # of packages at the coordinator, where the grant names them

    @property
    def address(self) -> str:
        """`host:port`, as an address is written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_connection(folder: Path) -> Connection:
    """`folder/connection.json`. Raises ArtefactError when it is missing or does not fit."""
    path = folder / NAME
    if not path.is_file():
        raise ArtefactError.of(
            "the site has not joined a consortium",
            where=str(path),
            expected="the file that the coordinator's grant makes",
            do="fairsynth provision request KIT.json --out SITE_FOLDER; then install GRANT.json SITE_FOLDER",
        )
    try:
        return Connection.model_validate(plain_json.read(path))
    except PydanticError as error:
        keys = sorted({".".join(map(str, detail["loc"])) for detail in error.errors()})
        raise ArtefactError.of(
            "not a connection",
            where=f"{path}  {', '.join(keys)}",
            expected="the file as it was installed",
            do="fairsynth provision install GRANT.json SITE_FOLDER, once more",
        ) from None
