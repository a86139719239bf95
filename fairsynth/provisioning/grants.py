"""Request -> grant: what a coordinator checks before the authority signs.

In:  a request, the records.   Out: the new record of that site, with its grant.
Never: a grant for a key whose holder did not sign, for a site that was not invited, or for a key of another site.
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairsynth import artefacts
from fairsynth.config import read_consortium
from fairsynth.errors import Problem, ProvisioningRefused
from fairsynth.governance import identity
from fairsynth.provisioning import documents, node_keys
from fairsynth.provisioning.authority import Authority, fingerprint, read_authority
from fairsynth.provisioning.documents import Grant, Request
from fairsynth.provisioning.records import CONSORTIUM, SiteRecord, held, publish, read_all, write_record
from fairsynth.schemas import SiteId

MAXIMUM_AGE = datetime.timedelta(days=30)
_CLOCKS = datetime.timedelta(days=1)  # that a site's clock may be ahead


def accept(folder: Path, request_path: Path, *, digits: str | None = None) -> tuple[Request, SiteRecord]:
    """Check the request, sign a grant, enter it. The same request again gives the same grant.

    `digits` are those that the site read out, where the coordinator has them before.

    Raises ProvisioningRefused, KeyRefused.
    """
    request = documents.read(request_path, Request)
    if digits is not None and "".join(digits.split()).lower() != "".join(documents.spoken(request.sha256).split()):
        raise ProvisioningRefused.of(
            "request with other digits than the site's",
            where=str(request_path),
            expected="the 32 digits that `fairsynth provision request` printed at the site",
            do="ask the site to read them again; if they differ, somebody exchanged the file",
        )
    with held(folder):
        publish(folder)
        config, authority = read_consortium(folder / CONSORTIUM), read_authority(folder)
        records = read_all(folder)
        asked = _Asked(request=request, records=records, where=str(request_path))
        if problems := [*asked.key_problems(), *asked.origin_problems(config.name, fingerprint(authority.certificate))]:
            raise ProvisioningRefused(problems)
        record = records[request.site]
        if record.state == "granted" and record.grant and record.grant.request_sha256 == request.sha256:
            return request, record  # entered before a command was stopped, or asked twice
        if problems := [*asked.state_problems(record), *asked.reuse_problems()]:
            raise ProvisioningRefused(problems)
        server = config.server
        grant = _signed(
            Grant(
                consortium=config.name, site=request.site, host=server.host, port=server.port,
                identity=request.identity, supernode=request.supernode, request_sha256=request.sha256,
                serial=record.serial + 1, granted=documents.now(), ca_pem=authority.pem.decode(),
                versions={**artefacts.software_versions(), "python": platform.python_version()},
            ),
            authority,
        )  # fmt: skip
        record = _granted(record, grant)
        write_record(folder, record)
    return request, record


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A request before it is believed."""

    request: Request
    records: Mapping[SiteId, SiteRecord]
    where: str

    def key_problems(self) -> Iterator[Problem]:
        """Unless the holders of both keys signed all of it."""
        request, signatures = self.request, self.request.signatures
        key = node_keys.parse_public(request.supernode, where=f"{self.where}: supernode")
        public = bytes.fromhex(request.identity)
        if signatures is None or not identity.verify(public, request.signed, bytes.fromhex(signatures.identity)):
            yield self._problem("request not signed by its identity key", "as the site wrote it")
        if signatures is None or not node_keys.verify(key, request.signed, bytes.fromhex(signatures.supernode)):
            yield self._problem("request not signed by its SuperNode key", "as the site wrote it")

    def origin_problems(self, consortium: str, ca_sha256: str) -> Iterator[Problem]:
        """Unless it is an invited site's, made of our kit, not long ago."""
        request = self.request
        if request.consortium != consortium:
            yield self._problem(f"request of consortium {request.consortium}", consortium)
        if request.ca_sha256 != ca_sha256:
            yield self._problem("request made of a kit with another certificate", "the kit in kits/, unaltered")
        if request.site not in self.records:
            yield self._problem(f"site {request.site} is not invited", f"one of: {', '.join(sorted(self.records))}")
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(request.time)
        if not -_CLOCKS <= age <= MAXIMUM_AGE:
            yield self._problem("request too old, or of the future", f"of the last {MAXIMUM_AGE.days} days")

    def reuse_problems(self) -> Iterator[Problem]:
        """If another site has one of its keys, or the SuperNode key does not count any more."""
        request, sha256 = self.request, node_keys.fingerprint(self.request.supernode)
        for site, record in self.records.items():
            if site != request.site and record.grant is not None:
                if request.identity == record.grant.identity:
                    yield self._problem(f"identity key of site {site}", "a key of this site alone")
                if sha256 in (record.supernode_sha256, *record.former):
                    yield self._problem(f"SuperNode key of site {site}", "a key of this site alone")
        record = self.records[request.site]
        retired = record.supernode_sha256 if record.state != "granted" or request.renewal else None
        if sha256 in (retired, *record.former):
            yield self._problem(
                "SuperNode key that was used before", "a new one", do="the site asks again with --renew"
            )

    def state_problems(self, record: SiteRecord) -> Iterator[Problem]:
        """If the site's state does not allow it."""
        request, grant = self.request, record.grant
        if record.state == "revoked":
            yield self._problem(
                f"site {request.site} is revoked",
                "an invited site",
                do=f"fairsynth provision add FOLDER {request.site}",
            )
        elif record.state == "granted" and not request.renewal:
            yield self._problem(
                f"site {request.site} has a grant", "a renewal",
                do=f"the site asks with --renew; for a lost identity, revoke {request.site} first",
            )  # fmt: skip
        elif record.state == "granted" and grant is not None and grant.identity != request.identity:
            yield self._problem(
                "renewal by another identity", "the identity that was granted",
                do=f"for a lost identity, revoke {request.site}, then add it again",
            )  # fmt: skip

    def _problem(self, what: str, expected: str, *, do: str = "") -> Problem:
        return Problem(what=what, where=self.where, expected=expected, do=do)


def _signed(grant: Grant, authority: Authority) -> Grant:
    return grant.model_copy(update={"signature": authority.sign(grant.signed).hex()})


def _granted(record: SiteRecord, grant: Grant) -> SiteRecord:
    """The record with this grant; the key that it replaces is a former one from now on."""
    former = record.former if record.supernode_sha256 in (None, *record.former) else (
        *record.former, str(record.supernode_sha256),
    )  # fmt: skip
    return record.model_copy(
        update={"state": "granted", "grant": grant, "serial": grant.serial, "former": former, "revoked": None}
    )
