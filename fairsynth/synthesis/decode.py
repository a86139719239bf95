"""Synthetic records -> MEDS events, in the codes, units and words of the site they were made for.

In:  `Records`, and the site's `cohort/decoder.parquet` (fairsynth/visits/decoder.py).   Out: an `events/` artefact.
Never: a real patient's event, identifier or date. Every choice is drawn from the decoder's counts; identifiers come
from a range of their own and dates from a calendar of their own, so that no row can be taken for a real one.

What a token cannot give back is drawn (timeline.py) or left out and counted in the manifest; see docs/report.md.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fairsynth import artefacts, plain_json
from fairsynth.extraction.codes import CODES_ARROW
from fairsynth.extraction.engine import CODES, DATA, DATASET, EVENT_ARROW, FLOW, KIND
from fairsynth.schemas import IntArray
from fairsynth.seeds import Streams
from fairsynth.synthesis.assemble import FIRST_ID, Drawn, assemble
from fairsynth.synthesis.choices import Decoder
from fairsynth.synthesis.draw import draw, visits_of
from fairsynth.synthesis.tables import write_tables
from fairsynth.synthesis.timeline import timeline
from fairsynth.visits.cohort import COHORT
from fairsynth.visits.decoder import STRUCTURAL
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.prepare import VISITS
from fairsynth.visits.records import Records, regrouped
from fairsynth.visits.tasks import Outcome, label_visit_follows, outcome_of

SHARD_PATIENTS = 1000  # patients decoded at once, and in a file
RECORDS = "records"  # the artefact that keeps generated records beside their events
AT_HOME = (
    "none: stays at the site"  # what a manifest says of the release of synthetic patients; the gate alone lifts it
)

__all__ = ["AT_HOME", "FIRST_ID", "RECORDS", "label_visit_follows", "records_sha256", "write_events", "write_tables"]


def write_events(records: Records | Iterable[Records], *, root: Path, out: Path, seed: int) -> Path:
    """Write `out/events/` for synthetic `records` of the site at `root`, and return its path.

    Records may come in parts: one shard of `SHARD_PATIENTS` patients is in memory at a time. The same patients, site
    and seed give the same files, whatever the parts. Raises ArtefactError when the site has no cohort or events.
    """
    site = _Site.read(root)
    written = _Written(streams=Streams(seed, "decode"))
    facts: dict[str, object] = {
        "synthetic": True,
        "release": AT_HOME,
        "seed": seed,
        "calendar": "artificial" if site.artificial else "real",
    }
    inputs = dict(site.inputs)
    parts = [records] if isinstance(records, Records) else records
    with artefacts.new(out, kind=KIND, inputs=inputs, facts=facts) as folder:
        (folder / DATA).mkdir(parents=True)
        for number, part in enumerate(regrouped(parts, patients=SHARD_PATIENTS)):
            events = written.add(part, site)
            pq.write_table(events.to_arrow().cast(EVENT_ARROW), folder / DATA / f"{number}.parquet", compression="zstd")
        _name_shards(folder / DATA)
        _describe(folder, used=written.codes, known=root / KIND / CODES)
        facts |= written.facts
        inputs["records"] = written.sha256
        artefacts.write_json(folder / FLOW, {name: facts[name] for name in ("patients", "visits", "events")})
    return out / KIND


def records_sha256(records: Records) -> str:
    """The hash by which the manifest of events names the records that they were decoded from."""
    return _sha256([hashlib.sha256(np.ascontiguousarray(array).data) for array in _hashed(records)])


def _hashed(records: Records) -> tuple[IntArray, ...]:
    lengths = np.diff(records.visit_offsets), records.visit_counts
    return records.codes, *lengths, records.context, records.label


def _sha256(digests: Iterable[hashlib._Hash]) -> str:
    return artefacts.sha256_json([digest.hexdigest() for digest in digests])


@dataclass(frozen=True, kw_only=True)
class _Site:
    """What of a site its synthetic events follow from. `artificial`: its source has no calendar."""

    vocabulary: Vocabulary
    decoder: Decoder
    inputs: dict[str, str]
    outcome: Outcome | None
    label_visit_follows: bool
    readmitted: bool  # a label of 1 is told by a visit that follows
    group_once: bool
    artificial: bool

    @classmethod
    def read(cls, root: Path) -> Self:
        """The site at `root`. Raises ArtefactError."""
        cohort = artefacts.read_manifest(root / COHORT, kind=COHORT)
        source = artefacts.read_manifest(root / KIND, kind=KIND)
        prepared = artefacts.read_manifest(root / VISITS, kind=VISITS)["facts"]
        outcome = outcome_of(prepared["task"])
        artificial = source["facts"].get("calendar") == "artificial"
        vocabulary = _vocabulary(root)
        decoder = Decoder.read(root / COHORT / "decoder.parquet", names=(*vocabulary.names, *STRUCTURAL))
        return cls(
            vocabulary=vocabulary,
            decoder=decoder,
            inputs={"cohort": cohort["content"], "codes": source["content"]},
            outcome=outcome,
            label_visit_follows=label_visit_follows(prepared["task"]),
            readmitted=outcome is Outcome.readmission and not (artificial or prepared["readmission_events"]),
            group_once=_told_once(decoder.sources(vocabulary.layout.groups), events=root / KIND),
            artificial=artificial,
        )


@dataclass(kw_only=True)
class _Written:
    """What was written so far."""

    streams: Streams
    patients: int = 0
    visits: int = 0
    events: int = 0
    contradictory: int = 0
    undecodable: Counter[str] = field(default_factory=Counter)
    codes: set[str] = field(default_factory=set)
    hashes: list[hashlib._Hash] = field(default_factory=lambda: [hashlib.sha256() for _ in range(5)])

    def add(self, records: Records, site: _Site) -> pl.DataFrame:
        """The events of the next patients."""
        visits = visits_of(
            records,
            label_visit_follows=site.label_visit_follows,
            readmission_follows=site.readmitted,
            before=(self.patients, self.visits),
        )
        drawn = draw(
            records,
            vocabulary=site.vocabulary,
            decoder=site.decoder,
            visits=visits,
            deadly=site.outcome is Outcome.death,
            streams=self.streams,
        )
        offsets = visits.patient_offsets
        times = timeline(drawn.intervals, patient_offsets=offsets, streams=self.streams, artificial=site.artificial)
        events = assemble(drawn, visits=visits, times=times, rng=self.streams("hours"), group_once=site.group_once)
        self._count(records, drawn=drawn, visits=len(visits.patient), events=events)
        self.contradictory += times.contradictory
        return events

    def _count(self, records: Records, *, drawn: Drawn, visits: int, events: pl.DataFrame) -> None:
        self.patients += len(records)
        self.visits += visits
        self.events += len(events)
        self.undecodable.update(drawn.undecodable)
        self.codes.update(events["code"].unique())
        for digest, array in zip(self.hashes, _hashed(records), strict=True):
            digest.update(np.ascontiguousarray(array).data)

    @property
    def sha256(self) -> str:
        """The hash of the tokens that were decoded."""
        return _sha256(self.hashes)

    @property
    def facts(self) -> dict[str, object]:
        """What the manifest says."""
        return {
            "patients": self.patients,
            "visits": self.visits,
            "events": self.events,
            "undecodable": dict(sorted(self.undecodable.items())),
            "contradictory": self.contradictory,
        }


def _told_once(strings: pl.Series, *, events: Path) -> bool:
    """Whether the source tells these strings of patients, outside any visit, and never at one (OMOP)."""
    known = strings.drop_nulls().unique()
    told = pl.scan_parquet(events / DATA / "*.parquet").filter(pl.col("code").is_in(known.implode()))
    at_visits = told.filter(pl.col("visit_id").is_not_null()).head(1).collect()
    return at_visits.is_empty() and not told.head(1).collect().is_empty()


def _vocabulary(root: Path) -> Vocabulary:
    stored = plain_json.read(root / COHORT / "vocabulary.json")
    return Vocabulary(**{name: tuple(values) for name, values in stored.items()})


def _name_shards(folder: Path) -> None:
    """Pad the shards' numbers, so that their names are in their order."""
    shards = list(folder.glob("*.parquet"))
    width = len(str(len(shards) - 1))
    for path in shards:
        path.rename(folder / f"{int(path.stem):0{width}d}.parquet")


def _describe(folder: Path, *, used: set[str], known: Path) -> None:
    """The data set's description; its codes keep the descriptions and parents that the site's dictionary gives."""
    (folder / CODES).parent.mkdir(parents=True)
    names = pa.array(sorted(used), pa.string())
    described = pq.read_table(known, schema=CODES_ARROW)
    described = described.filter(pc.is_in(described["code"], value_set=names))
    others = names.filter(pc.invert(pc.is_in(names, value_set=described["code"].combine_chunks())))
    plain = pa.table([others, pa.nulls(len(others)), pa.array([[]] * len(others))], CODES_ARROW.names)
    pq.write_table(pa.concat_tables([described, plain.cast(CODES_ARROW)]).sort_by("code"), folder / CODES)
    artefacts.write_json(folder / DATASET, _dataset())


def _dataset() -> dict[str, object]:
    return {
        "dataset_name": "FairSynth synthetic patients",
        "etl_name": "fairsynth.synthesis",
        "etl_version": artefacts.code_version(),
        "meds_version": importlib.metadata.version("meds"),
        "code_modifier_columns": ["unit"],
        "other_extension_columns": ["visit_id"],
    }
