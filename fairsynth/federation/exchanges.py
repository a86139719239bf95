"""Replies of the exchanges beside training, kept until the study has finished: a server that starts again replays them.

In:  the requests of a phase, the sites' replies.   Out: `exchanges/<number>/`, or the replies that were kept.
Never: a reply that its exchange did not accept; a reply to another request than the one that is asked now.

What leaves the sites in these exchanges is asked once: a site that was left out stays out, and a masked reply, which no
site makes a second time, is at hand.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt
from pydantic import ValidationError as PydanticError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fairsynth import artefacts
from fairsynth.config import Strict
from fairsynth.errors import ArtefactError
from fairsynth.federation.masking.sealing import request_sha256
from fairsynth.federation.messages import Envelope
from fairsynth.federation.server_folder import EXCHANGES
from fairsynth.schemas import Arrays, SiteId

_RECORD = "exchange.json"


class _Reply(Strict):
    """A site's reply, its arrays aside."""

    kind: str
    fields: str


class _Record(Strict):
    """`exchange.json`."""

    phase: str
    position: NonNegativeInt  # events of the journal before the exchange was accepted
    asked: dict[SiteId, str]  # hash of each site's request
    replies: dict[SiteId, _Reply]


class Exchanges:
    """The exchanges of one study, in the order in which they are asked."""

    def __init__(self, root: Path, *, run: str) -> None:
        self._root, self._inputs = root / EXCHANGES, {"run": run}
        self._number = 0

    def recall(self, requests: Mapping[SiteId, Envelope]) -> dict[SiteId, Envelope] | None:
        """The kept replies of the next exchange; None where there are none, or none that are sound.

        Raises ArtefactError when they are replies to other requests.
        """
        found = self._read(self._number)
        if found is None:
            return None
        record, replies = found
        if record.asked != _hashes(requests):
            raise ArtefactError.of(
                "kept replies to another request",
                where=f"{self._path(self._number)}, {record.phase}",
                expected="the request that was asked before",
                do="resume with the plan, software and kind of machine that the study began with",
            )
        self._number += 1
        return replies

    def keep(
        self,
        requests: Mapping[SiteId, Envelope],
        replies: Mapping[SiteId, Envelope],
        *,
        phase: str,
        position: int,
    ) -> None:
        """Keep an exchange that was accepted. Raises ArtefactError on a full or broken disk."""
        path = self._path(self._number)
        record = _Record(
            phase=phase,
            position=position,
            asked=_hashes(requests),
            replies={site: _Reply(kind=one.kind, fields=one.fields) for site, one in replies.items()},
        )
        try:
            with artefacts.new(self._root, kind=path.name, inputs=self._inputs) as folder:
                for site, one in replies.items():
                    arrays = {name: np.ascontiguousarray(array) for name, array in one.arrays.items()}
                    save_file(arrays, folder / f"{site}.safetensors")
                artefacts.write_text(folder / _RECORD, record.model_dump_json() + "\n")
        except (OSError, SafetensorError):
            raise ArtefactError.of(
                "an exchange could not be written",
                where=str(path),
                expected="room and permission to write",
                do="make room, then go on with `fairsynth study ... --resume`",
            ) from None
        self._number += 1

    def position(self) -> int:
        """Events of the journal before the last sound exchange was accepted; 0 where there is none."""
        numbers = [int(path.name.rpartition("-")[2]) for path in self._root.glob("exchange-*")]
        return max((found[0].position for number in numbers if (found := self._read(number))), default=0)

    def drop(self, *, after: int | None) -> list[str]:
        """Remove the exchanges that are not as they were written, and those accepted after the journal's event `after`.

        Returns the names of the former: they are asked again.
        """
        spoilt = []
        for path in sorted(self._root.glob("exchange-*")):
            found = self._read(int(path.name.rpartition("-")[2]))
            if found is None:
                spoilt.append(path.name)
            if found is None or (after is not None and found[0].position >= after):
                shutil.rmtree(path)
        return spoilt

    def clear(self) -> None:
        """Remove all exchanges."""
        if self._root.exists():
            shutil.rmtree(self._root)

    def _path(self, number: int) -> Path:
        return self._root / f"exchange-{number:05d}"

    def _read(self, number: int) -> tuple[_Record, dict[SiteId, Envelope]] | None:
        """What is kept of an exchange, None where it is missing or not as it was written."""
        path = self._path(number)
        try:
            if artefacts.read_manifest(path, kind=path.name, verify=True)["inputs"] != self._inputs:
                return None
            record = _Record.model_validate_json((path / _RECORD).read_bytes())
            return record, {
                site: Envelope(kind=one.kind, fields=one.fields, arrays=_arrays(path / f"{site}.safetensors"))
                for site, one in record.replies.items()
            }
        except (ArtefactError, OSError, KeyError, ValueError, PydanticError, SafetensorError):
            return None


def _arrays(path: Path) -> Arrays:
    found = load_file(path)
    return {name: found[name] for name in sorted(found)}


def _hashes(requests: Mapping[SiteId, Envelope]) -> dict[SiteId, str]:
    """Hash of each site's request; a request to all is hashed once."""
    known = {id(request): request_sha256(request) for request in requests.values()}
    return {site: known[id(request)] for site, request in requests.items()}
