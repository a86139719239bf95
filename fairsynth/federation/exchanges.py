"""Replies of the exchanges beside training, kept until the study has finished: a server that starts again replays them.

In:  the requests of a phase, the sites' replies as they come.   Out: `exchanges/<number>/`, or the replies that were
kept, one at a time.
Never: a reply that its exchange did not accept; a reply to another request than the one that is asked now.

What leaves the sites in these exchanges is asked once: a site that was left out stays out, and a masked reply, which no
site makes a second time, is at hand.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt
from pydantic import ValidationError as PydanticError
from safetensors.numpy import load_file, save_file

from fairsynth import artefacts
from fairsynth.config import Strict
from fairsynth.errors import ArtefactError
from fairsynth.federation.masking.sealing import request_sha256
from fairsynth.federation.messages import Envelope
from fairsynth.federation.server_folder import EXCHANGES
from fairsynth.schemas import Arrays, SiteId

_RECORD = "exchange.json"


class _Record(Strict):
    """`exchange.json`."""

    phase: str
    position: NonNegativeInt  # events of the journal before the exchange was accepted
    asked: dict[SiteId, str]  # hash of each site's request
    replies: dict[SiteId, str]  # its kind, of each site; fields and arrays are in files of their own


class Exchanges:
    """The exchanges of one study, in the order in which they are asked."""

    def __init__(self, root: Path, *, run: str) -> None:
        self._root, self._inputs = root / EXCHANGES, {"run": run}
        self._number = 0

    def recall(self, requests: Mapping[SiteId, Envelope]) -> Iterator[tuple[SiteId, Envelope]] | None:
        """The kept replies of the next exchange; None where there are none, or none that are sound.

        Raises ArtefactError when they are replies to other requests.
        """
        path = self._path(self._number)
        record = self._read(path)
        if record is None:
            return None
        if record.asked != _hashes(requests):
            raise ArtefactError.of(
                "kept replies to another request",
                where=f"{path}, {record.phase}",
                expected="the request that was asked before",
                do="resume with the plan, software and kind of machine that the study began with",
            )
        self._number += 1
        return _replies(path, record)

    @contextlib.contextmanager
    def keeping(self, requests: Mapping[SiteId, Envelope]) -> Iterator[Keeping]:
        """Keeps the next exchange once it is accepted. Raises OSError or SafetensorError on a full or broken disk."""
        path = self._path(self._number)
        with artefacts.new(self._root, kind=path.name, inputs=self._inputs) as folder:
            keeping = Keeping(folder, asked=_hashes(requests))
            yield keeping
        self._number += 1

    def position(self) -> int:
        """Events of the journal before the last sound exchange was accepted; 0 where there is none."""
        found = map(self._read, self._root.glob("exchange-*"))
        return max((record.position for record in found if record), default=0)

    def drop(self, *, after: int | None) -> list[str]:
        """Remove the exchanges that are not as they were written, and those accepted after the journal's event `after`.

        Returns the names of the former: they are asked again.
        """
        spoilt = []
        for path in sorted(self._root.glob("exchange-*")):
            record = self._read(path)
            if record is None:
                spoilt.append(path.name)
            if record is None or (after is not None and record.position >= after):
                shutil.rmtree(path)
        return spoilt

    def clear(self) -> None:
        """Remove all exchanges."""
        if self._root.exists():
            shutil.rmtree(self._root)

    def _path(self, number: int) -> Path:
        return self._root / f"exchange-{number:05d}"

    def _read(self, path: Path) -> _Record | None:
        """What is kept of an exchange, its arrays aside; None where it is missing or not as it was written."""
        try:
            if artefacts.read_manifest(path, kind=path.name, verify=True)["inputs"] != self._inputs:
                return None
            return _Record.model_validate_json((path / _RECORD).read_bytes())
        except (ArtefactError, OSError, KeyError, ValueError, PydanticError):
            return None


class Keeping:
    """An exchange on its way to disk."""

    def __init__(self, folder: Path, *, asked: dict[SiteId, str]) -> None:
        self._folder, self._asked = folder, asked
        self._replies: dict[SiteId, str] = {}

    def add(self, site: SiteId, envelope: Envelope) -> None:
        """A reply came."""
        arrays = {name: np.asarray(array, order="C") for name, array in envelope.arrays.items()}
        save_file(arrays, _arrays_of(self._folder, site))
        _fields_of(self._folder, site).write_bytes(envelope.fields.encode())
        self._replies[site] = envelope.kind

    def accept(self, *, phase: str, position: int) -> None:
        """The exchange was accepted when the journal had so many events."""
        record = _Record(phase=phase, position=position, asked=self._asked, replies=self._replies)
        artefacts.write_text(self._folder / _RECORD, record.model_dump_json() + "\n")


def _replies(path: Path, record: _Record) -> Iterator[tuple[SiteId, Envelope]]:
    for site, kind in record.replies.items():
        fields = _fields_of(path, site).read_bytes().decode()
        yield site, Envelope(kind=kind, fields=fields, arrays=_arrays(_arrays_of(path, site)))


def _arrays_of(folder: Path, site: SiteId) -> Path:
    return folder / f"{site}.safetensors"


def _fields_of(folder: Path, site: SiteId) -> Path:
    return folder / f"{site}.fields"


def _arrays(path: Path) -> Arrays:
    found = load_file(path)
    return {name: found[name] for name in sorted(found)}


def _hashes(requests: Mapping[SiteId, Envelope]) -> dict[SiteId, str]:
    """Hash of each site's request; a request to all is hashed once."""
    known = {id(request): request_sha256(request) for request in requests.values()}
    return {site: known[id(request)] for site, request in requests.items()}
