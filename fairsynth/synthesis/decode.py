"""Synthetic records -> MEDS events, in the codes, units and words of the site they were made for.

In:  `Records`, and the site's `cohort/decoder.parquet` (fairsynth/visits/decoder.py).   Out: an `events/` artefact.
Never: a real patient's event, identifier or date. Every choice is drawn from the decoder's counts; identifiers come from
a range of their own and dates from a calendar of their own, so that no row can be taken for a real one.

What a token cannot give back is drawn or left out: see docs/report.md and `facts` of the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fairsynth import artefacts
from fairsynth.errors import ArtefactError
from fairsynth.schemas import EVENT_SCHEMA, IntArray
from fairsynth.seeds import numpy_stream
from fairsynth.synthesis import timeline
from fairsynth.synthesis.tables import write_tables
from fairsynth.visits.records import Records

__all__ = ["FIRST_ID", "write_events", "write_tables"]

KIND = "events"

# Identifiers of synthetic patients and visits: FIRST_ID, FIRST_ID + 1, ... They fit 32-bit columns, and lie above all
# identifiers of the sources (MIMIC-III and PIC stay below 1,000,000).
FIRST_ID = 2_000_000_000
SYNTHETIC = "SYNTHETIC"  # admission type and discharge location


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    """Tokens with what they were decoded to: patient, visit (index; null for context tokens), kind, name, source, unit,
    value; `records` they came from."""

    tokens: pl.DataFrame
    records: Records


def write_events(records: Records, *, root: Path, out: Path, seed: int) -> Path:
    """Write `out/events/` for synthetic `records` of the site at `root`, and return its path.

    Raises ArtefactError when the site has no cohort or no events to take codes' meanings from.
    """
    drawn = _draw(records, root=root, seed=seed)
