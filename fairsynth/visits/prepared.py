"""What `prepare` wrote of each patient, read again before a vocabulary is agreed.

In:  `visits/` of a site's folder, the plan.   Out: cells of all splits, visits and codes of each training patient.
Never: a patient's number in what is given back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.schemas import SPLITS, IntArray
from fairsynth.visits.prepare import VISITS, count_cells, plan_sha256


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Patients before they are encoded.

    cells    (3, G, 2) patients by split, group and label
    visits   (N,) of each training patient
    tokens   every token that a training patient carries, sorted
    carried  (M, 2) row of a training patient, index of a token that it carries: each pair once, sorted
    """

    cells: IntArray
    visits: IntArray
    tokens: tuple[str, ...]
    carried: IntArray


def read_prepared(root: Path, *, plan: StudyPlan) -> Prepared:
    """Read `root/visits`. Raises ArtefactError when there are none, or they were prepared for another plan."""
    folder = root / VISITS
    manifest = artefacts.read_manifest(folder, kind=VISITS)
    if manifest["facts"].get("plan_sha256") != plan_sha256(plan):
        raise ArtefactError.of("visits of another plan", where=str(folder), do="enrol for this study first")
    patients = pl.read_parquet(folder / "patients.parquet")
    training = patients.filter(split="train").sort("subject_id").with_row_index("row")
    pairs = (
        pl.read_parquet(folder / "tokens.parquet", columns=["subject_id", "token"])
        .unique()
        .join(training.select("subject_id", "row"), on="subject_id", how="inner")
        .with_columns(pl.col("token").cast(pl.String))
    )
    tokens = pairs["token"].unique().sort()
    index = {token: number for number, token in enumerate(tokens)}
    carried = np.stack(
        [
            pairs["row"].to_numpy().astype(np.int64),
            np.array([index[token] for token in pairs["token"]], dtype=np.int64),
        ],
        axis=1,
    )
    return Prepared(
        cells=np.stack([count_cells(patients.filter(split=name), plan=plan) for name in SPLITS]),
        visits=training["visits"].to_numpy().astype(np.int64),
        tokens=tuple(tokens),
        carried=carried[np.lexsort((carried[:, 1], carried[:, 0]))],
    )
