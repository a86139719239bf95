"""Folders of finished trials -> everything that an experiment leaves for its readers.

In:  the folders of cells of one setting.   Out: in one folder, `summary.json` and `summary.md` of all
settings so far; and of this one `<table>-<setting>` as Markdown, JSON (everything), Parquet (every seed), and charts.
Never: a file half written; more than one row's counts in memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError

from fairsynth import artefacts
from fairsynth.errors import ArtefactError
from fairsynth.experiments.evidence.cells import load_cell
from fairsynth.experiments.evidence.charts import charts
from fairsynth.experiments.evidence.counted import Row, gather
from fairsynth.experiments.evidence.headline import Headlines, headlines, merged
from fairsynth.experiments.evidence.measures import MINIMUM_POSITIVES, Key, Measures, measure
from fairsynth.experiments.evidence.overview import overview
from fairsynth.experiments.evidence.pages import page
from fairsynth.experiments.evidence.summary import summarise_row
from fairsynth.schemas import FloatArray

COLUMNS = (
    "setting",
    "real",
    "synthetic",
    "seed",
    "scope",
    "approach",
    "predictor",
    "threshold",
    "metric",
    "group",
    "value",
)


def publish(
    folders: Sequence[Path], *, table: str, command: str, out: Path, minimum_positives: int = MINIMUM_POSITIVES
) -> Headlines:
    """Write all that the trials in `folders` say into `out`, and return their headlines; `command` as `page` has it.

    Folders of one row have the same parent. Raises ArtefactError when there are none, or when one is damaged.
    """
    if not folders:
        raise ArtefactError.of("no finished trial", where=str(out), do="run the experiment first")
    rows, frames = [], []
    for parent in dict.fromkeys(folder.parent for folder in folders):
        row = gather([load_cell(folder) for folder in folders if folder.parent == parent])
        measures = measure(row, minimum_positives=minimum_positives)
        rows.append(summarise_row(row, measures, minimum_positives=minimum_positives))
        frames.append(long_table(row, measures))
    name = f"{table}-{rows[0].setting}"
    _write_parquet(pl.concat(frames), out / f"{name}.parquet")
    artefacts.write_text(out / f"{name}.json", f"[{','.join(row.model_dump_json() for row in rows)}]\n")
    found = headlines(rows, table=table, code_version=artefacts.code_version())
    shown = list(charts(rows, name=name))
    for chart in shown:
        chart.draw(out / chart.file)
    artefacts.write_text(
        out / f"{name}.md", page(rows, table=table, command=command, tallies=found.tallies, charts=shown)
    )
    _write_summary(found, out)
    return found


def _write_summary(found: Headlines, out: Path) -> None:
    """Write the headlines beside those of other settings that are there already, for programs and for people.

    `summary.json` is of the table that was run last; what another left is kept as `summary-<table>.json`.
    """
    path = out / "summary.json"
    last = _read_summary(path)
    if last is not None and last.table != found.table:
        artefacts.write_json(out / f"summary-{last.table}.json", last.model_dump(mode="json"))
        last = _read_summary(out / f"summary-{found.table}.json")
    if last is not None:
        found = merged(found, last)
    artefacts.write_json(path, found.model_dump(mode="json"))
    artefacts.write_text(out / "summary.md", overview(found))


def _read_summary(path: Path) -> Headlines | None:
    """The headlines in `path`; None where there are none. Raises ArtefactError where they are of another version."""
    if not path.is_file():
        return None
    try:
        return Headlines.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError:
        raise ArtefactError.of(
            "a summary of another version", where=str(path), do="move it away, then run the command again"
        ) from None


# --- the long table --------------------------------------------------------------------------------------------------


def long_table(row: Row, measures: Sequence[Measures]) -> pl.DataFrame:
    """A line for each seed, scope, approach, predictor, threshold and metric, with `COLUMNS`; null: undefined.

    `group` is null for everybody together. Pairs of approach and predictor that no trial has are left out.
    """
    frames = [
        _frame(row, one.scope, key, values)
        for one in measures
        for table in (one.overall, one.by_group)
        for key, values in table.items()
    ]
    return pl.concat(frames)


def _frame(row: Row, scope: str, key: Key, values: FloatArray) -> pl.DataFrame:
    """The lines of one metric (K, A, P) or (K, A, P, G) in one scope."""
    pairs = np.argwhere(row.present)  # (n, 2)
    kept = values[:, pairs[:, 0], pairs[:, 1]]  # (K, n) or (K, n, G)
    places = np.indices(kept.shape).reshape(kept.ndim, -1)
    approach, predictor = pairs[places[1]].T
    groups = [None] * kept.size if kept.ndim == 2 else [row.groups[index] for index in places[2]]
    constant = {"setting": row.setting, "real": row.real, "synthetic": row.synthetic, "scope": scope}
    return (
        pl.DataFrame(
            {
                "seed": np.array(row.seeds, dtype=np.int64)[places[0]],
                "approach": np.array(row.approaches)[approach],
                "predictor": np.array(row.predictors)[predictor],
                "group": pl.Series(groups, dtype=pl.String),
                "value": np.where(np.isfinite(kept), kept, np.nan).ravel(),
            }
        )
        .with_columns(
            *(pl.lit(value).alias(name) for name, value in constant.items()),
            pl.lit(key[0]).alias("metric"),
            pl.lit(key[1]).alias("threshold"),
            pl.col("value").fill_nan(None).cast(pl.Float32),  # seven digits are more than any of them is sure of
        )
        .select(COLUMNS)
    )


def _write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write `frame` so that readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    frame.write_parquet(temporary, compression="zstd", compression_level=15)
    temporary.replace(path)
