"""What one trial counts, on disk: a setting, two sizes and a seed; every approach, predictor and site.

In:  counts.   Out: an artefact, or a checked `Cell`.
Never: a score of one patient.

Arrays: `held_out` and `validation` int64 (A, P, S, G, 2, 200), histograms of scores on real patients by approach,
predictor, site, group and label; a pair of approach and predictor that does not exist holds zeros. `added` int64
(A, P, S, G, 2), patients that the approach added, by group and label; `train` int64 (S, G, 2), the real ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from fairsynth import artefacts, plain_json
from fairsynth.config import Favourable, Strict
from fairsynth.errors import ArtefactError
from fairsynth.schemas import Arrays, IntArray

KIND = "cell"


class Axes(Strict):
    """What the axes of the arrays stand for, and what the trial was."""

    setting: str
    real: int  # training patients of all sites
    synthetic: int  # patients that an approach may add, of all sites
    seed: int
    approaches: tuple[str, ...]
    predictors: tuple[str, ...]
    sites: tuple[str, ...]
    groups: tuple[str, ...]
    reference: tuple[str, ...]
    favourable: Favourable = "positive"  # the prediction that disparate impact compares


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One trial."""

    axes: Axes
    held_out: IntArray
    validation: IntArray
    added: IntArray
    train: IntArray
    facts: Mapping[str, Any]  # seconds, what was chosen, what ran short

    def save(self, root: Path) -> None:
        """Write the artefact `root/cell`, whole or not at all."""
        with artefacts.new(root, kind=KIND, inputs={}, facts=dict(self.facts)) as folder:
            arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
            save_file(arrays, folder / "counts.safetensors")
            artefacts.write_json(folder / "axes.json", self.axes.model_dump(mode="json"))


_ARRAYS = ("held_out", "validation", "added", "train")


def load_cell(root: Path) -> Cell:
    """The cell in `root`. Raises ArtefactError when it is missing, altered, or its arrays do not fit its axes."""
    folder = root / KIND
    manifest = artefacts.read_manifest(folder, kind=KIND, verify=True)
    axes = Axes.model_validate(plain_json.read(folder / "axes.json"))
    arrays: Arrays = load_file(folder / "counts.safetensors")
    trials = (len(axes.approaches), len(axes.predictors), len(axes.sites), len(axes.groups), 2)
    shapes = {"held_out": (*trials, 200), "validation": (*trials, 200), "added": trials, "train": trials[2:]}
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise ArtefactError.of("counts do not fit their axes", where=str(folder), do="remove the folder, and run again")
    return Cell(axes=axes, facts=manifest["facts"], **{name: array.astype(np.int64) for name, array in arrays.items()})
