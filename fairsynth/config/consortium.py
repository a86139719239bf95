"""`consortium.yaml`: whose certificates and keys a coordinator looks after.

In:  YAML.   Out: `ConsortiumConfig`.   Never: a key, a secret, or anything of a study.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from fairsynth.config.base import Name, Strict
from fairsynth.schemas import SiteId

MAXIMUM_CERTIFICATE_DAYS = 825  # longer ones are refused by some TLS libraries
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_address(text: str) -> bool:
    """Whether `text` is an IP address, and not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> str:
    labels = text.split(".")
    named = len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
    if not named and not is_address(text):
        raise ValueError("neither a DNS name in small letters nor an IP address")
    return text


Host = Annotated[str, AfterValidator(_is_host)]


class ServerAddress(Strict):
    """Where sites reach the server: a name or address, and what else its certificate is for."""

    host: Host
    port: Annotated[int, Field(ge=1, le=65535)] = 8443
    also: tuple[Host, ...] = ()  # other names and addresses of the same server


class ConsortiumSite(Strict):
    """One site that is invited."""

    site: SiteId = Field(pattern=r"^[a-z][a-z0-9_-]{0,47}$")


class ConsortiumConfig(Strict):
    """`consortium.yaml`: the server and the sites that a coordinator gives certificates and grants to."""

    schema_: Literal["fairsynth.consortium/1"] = Field(alias="schema")
    name: Name
    server: ServerAddress
    sites: tuple[ConsortiumSite, ...] = Field(min_length=1)
    certificate_days: Annotated[PositiveInt, Field(le=MAXIMUM_CERTIFICATE_DAYS)] = 365  # of the server's certificate

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [entry.site for entry in self.sites]
        if len(set(names)) != len(names):
            raise ValueError("a site is named twice")
        return self
