"""Synthetic records -> MEDS events, in the codes, units and words of the site they were made for.

In:  `Records`, and the site's `cohort/decoder.parquet` (fairsynth/visits/decoder.py).   Out: an `events/` artefact.
Never: a real patient's event, identifier or date. Every choice is drawn from the decoder's counts; identifiers come
from a range of their own and dates from a calendar of their own, so that no row can be taken for a real one.

What a token cannot give back is drawn (timeline.py) or left out and counted in the manifest; see docs/report.md.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fairsynth import artefacts
from fairsynth.extraction.codes import CODES_ARROW
from fairsynth.extraction.engine import CODES, DATA, DATASET, EVENT_ARROW, FLOW, KIND
from fairsynth.seeds import numpy_stream
from fairsynth.synthesis.assemble import FIRST_ID, assemble
from fairsynth.synthesis.choices import Decoder
from fairsynth.synthesis.draw import draw, visits_of
from fairsynth.synthesis.tables import write_tables
from fairsynth.synthesis.timeline import timeline
from fairsynth.visits.cohort import COHORT
from fairsynth.visits.decoder import STRUCTURAL
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.prepare import VISITS
from fairsynth.visits.records import Records
from fairsynth.visits.tasks import Outcome, label_visit_follows, outcome_of

__all__ = ["FIRST_ID", "label_visit_follows", "write_events", "write_tables"]


def write_events(records: Records, *, root: Path, out: Path, seed: int) -> Path:
    """Write `out/events/` for synthetic `records` of the site at `root`, and return its path.

    The same records, site and seed give the same events. Raises ArtefactError when the site has no cohort or events.
    """
    cohort = artefacts.read_manifest(root / COHORT, kind=COHORT)
    source = artefacts.read_manifest(root / KIND, kind=KIND)
    prepared = artefacts.read_manifest(root / VISITS, kind=VISITS)["facts"]
    outcome, follows = outcome_of(prepared["task"]), label_visit_follows(prepared["task"])
    artificial = source["facts"].get("calendar") == "artificial"
    readmitted = outcome is Outcome.readmission and not (artificial or prepared["readmission_events"])
    vocabulary = _vocabulary(root)
    decoder = Decoder.read(root / COHORT / "decoder.parquet", names=(*vocabulary.names, *STRUCTURAL))
    visits = visits_of(records, label_visit_follows=follows, readmission_follows=readmitted)
    deadly = outcome is Outcome.death
    drawn = draw(records, vocabulary=vocabulary, decoder=decoder, visits=visits, deadly=deadly, seed=seed)
    calendar = numpy_stream(seed, "decode", "calendar")
    offsets = visits.patient_offsets
    times = timeline(drawn.intervals, patient_offsets=offsets, rng=calendar, artificial=artificial)
    hours, once = numpy_stream(seed, "decode", "hours"), _told_once(drawn.group, events=root / KIND)
    events = assemble(drawn, visits=visits, times=times, rng=hours, group_once=once)
    facts = {
        "synthetic": True,
        "seed": seed,
        "patients": len(records),
        "visits": len(visits.patient),
        "events": len(events),
        "undecodable": drawn.undecodable,
        "contradictory": times.contradictory,
        "calendar": "artificial" if artificial else "real",
    }
    inputs = {"cohort": cohort["content"], "codes": source["content"], "records": _sha256(records)}
    with artefacts.new(out, kind=KIND, inputs=inputs, facts=facts) as folder:
        _write(folder, events, known=root / KIND / CODES, facts=facts)
    return out / KIND


def _told_once(group: pl.Series, *, events: Path) -> bool:
    """Whether the source tells these strings of patients, outside any visit, and never at one (OMOP)."""
    strings = group.drop_nulls().unique()
    told = pl.scan_parquet(events / DATA / "*.parquet").filter(pl.col("code").is_in(strings.implode()))
    at_visits = told.filter(pl.col("visit_id").is_not_null()).head(1).collect()
    return at_visits.is_empty() and not told.head(1).collect().is_empty()


def _vocabulary(root: Path) -> Vocabulary:
    stored = json.loads((root / COHORT / "vocabulary.json").read_text(encoding="utf-8"))
    return Vocabulary(**{name: tuple(values) for name, values in stored.items()})


def _sha256(records: Records) -> str:
    """The hash of the tokens that were decoded."""
    arrays = (records.codes, records.visit_offsets, records.patient_offsets, records.context, records.label)
    return artefacts.sha256_json([array.tolist() for array in arrays])


def _write(folder: Path, events: pl.DataFrame, *, known: Path, facts: dict[str, object]) -> None:
    """The files of a MEDS data set; the codes keep the descriptions and parents that the site's dictionary gives."""
    (folder / DATA).mkdir(parents=True)
    (folder / CODES).parent.mkdir(parents=True)
    pq.write_table(events.to_arrow().cast(EVENT_ARROW), folder / DATA / "0.parquet", compression="zstd")
    used = events["code"].unique().sort().to_arrow().cast(pa.string())
    described = pq.read_table(known, schema=CODES_ARROW)
    described = described.filter(pc.is_in(described["code"], value_set=used))
    others = used.filter(pc.invert(pc.is_in(used, value_set=described["code"].combine_chunks())))
    plain = pa.table([others, pa.nulls(len(others)), pa.array([[]] * len(others))], CODES_ARROW.names)
    pq.write_table(pa.concat_tables([described, plain.cast(CODES_ARROW)]).sort_by("code"), folder / CODES)
    artefacts.write_json(folder / DATASET, _dataset())
    artefacts.write_json(folder / FLOW, {name: facts[name] for name in ("patients", "visits", "events")})


def _dataset() -> dict[str, object]:
    return {
        "dataset_name": "FairSynth synthetic patients",
        "etl_name": "fairsynth.synthesis",
        "etl_version": artefacts.code_version(),
        "meds_version": importlib.metadata.version("meds"),
        "code_modifier_columns": ["unit"],
        "other_extension_columns": ["visit_id"],
    }
