"""A fit on disk: all that a killed training needs to go on at the step where it was.

In:  a `State` every so often.   Out: the newest whole one.
Never: pickle; the only whole state overwritten; a state of another training taken for this one's.

Two folders take turns, each written beside its name and renamed. Whenever the process ends, one of them is whole; a
damaged one is passed over for the other.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fairsynth import artefacts
from fairsynth.errors import ArtefactError, Problem
from fairsynth.generator.model import Halo, check_weights, packed, unpacked, weights_of
from fairsynth.schemas import Arrays

KINDS = ("fit-0", "fit-1")
ARRAYS, POSITION = "arrays.safetensors", "position.json"
MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}
SHARE = 20  # training lasts at least this many times as long as writing its states
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """`arrays` by group (weights, first and second moments, best weights if any) and name; `position` is JSON."""

    arrays: Mapping[str, Arrays]
    position: Mapping[str, Any]


@dataclass(kw_only=True, eq=False)
class Resume:
    """The folder of a fit's states, written at most every `seconds`; less often where writing takes long."""

    root: Path
    seconds: float = 60.0
    identity: dict[str, str] = field(default_factory=dict)  # what is trained: hashes by name, set by `fit`
    _written: int = 0
    _due: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._due += self.seconds

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() >= self._due

    def write(self, state: State) -> None:
        """Write `state` in the place of the older of the two."""
        began = time.monotonic()
        facts = {"written": self._written + 1}
        with artefacts.new(
            self.root, kind=KINDS[self._written % len(KINDS)], inputs=self.identity, facts=facts
        ) as folder:
            flat = {f"{group}/{name}": array for group, own in state.arrays.items() for name, array in own.items()}
            save_file({name: np.ascontiguousarray(array) for name, array in flat.items()}, folder / ARRAYS)
            artefacts.write_json(folder / POSITION, state.position)
        self._written += 1
        ended = time.monotonic()
        self._due = ended + max(self.seconds, SHARE * (ended - began))

    def read(self) -> State | None:
        """The newest whole state, None when there is none yet.

        Raises ArtefactError when it is of another training, or when there are states and none is whole.
        """
        found = [folder for folder in (self.root / kind for kind in KINDS) if folder.exists()]
        for folder in sorted(found, key=_number, reverse=True):
            state = _whole(folder)
            if state is None:
                LOGGER.warning("a state of the training is damaged and passed over: %s", folder)
                continue
            self._check(artefacts.read_manifest(folder, kind=folder.name)["inputs"])
            self._written = _number(folder)
            return state
        if found:
            raise ArtefactError.of(
                "no state of the training is whole", where=str(self.root), do="delete the folder and begin again"
            )
        return None

    def _check(self, identity: Mapping[str, str]) -> None:
        """Raise ArtefactError with all in which `identity` is of another training."""
        if differing := sorted(key for key in self.identity if identity.get(key) != self.identity[key]):
            raise ArtefactError(
                Problem(
                    what=f"state of another training: other {name}",
                    where=str(self.root),
                    expected="what it was begun with",
                    do="give that, or delete the folder and begin again",
                )
                for name in differing
            )


def _number(folder: Path) -> int:
    """How many states had been written when this one was; 0 where the manifest cannot be read."""
    try:
        return int(artefacts.read_manifest(folder, kind=folder.name)["facts"]["written"])
    except (ArtefactError, OSError, ValueError, KeyError, TypeError):
        return 0


def _whole(folder: Path) -> State | None:
    """The state in `folder`, None when any of it is damaged."""
    try:
        artefacts.read_manifest(folder, kind=folder.name, verify=True)
        return _load(folder)
    except (ArtefactError, SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def _load(folder: Path) -> State:
    arrays: dict[str, Arrays] = {}
    for name, array in load_file(folder / ARRAYS).items():
        group, _, own = name.partition("/")
        arrays.setdefault(group, {})[own] = array
    position = json.loads((folder / POSITION).read_text(encoding="utf-8"))
    return State(arrays=arrays, position=position)


def arrays_of(model: Halo, optimiser: torch.optim.Optimizer) -> dict[str, Arrays]:
    """The model's weights and the optimiser's moments as they travel; the optimiser has taken a step."""
    moments = {
        group: {name: packed(optimiser.state[own][key], name, model=model) for name, own in model.named_parameters()}
        for group, key in MOMENTS.items()
    }
    steps = next(iter(optimiser.state.values()))[
        "step"
    ]  # of all weights; fewer than were asked for if some were skipped
    return {"weights": weights_of(model), **moments, "adam": {"steps": steps.reshape(1).cpu().numpy()}}


def restore(model: Halo, optimiser: torch.optim.Optimizer, *, arrays: Mapping[str, Arrays]) -> None:
    """Put model and optimiser where `arrays_of` found them. Raises ProtocolError on a misfit."""
    for group in ("weights", *MOMENTS):
        check_weights(arrays[group], model=model)
    set_weights(model, arrays["weights"])
    for name, own in model.named_parameters():
        moments = {key: unpacked(arrays[group][name], name, model=model) for group, key in MOMENTS.items()}
        optimiser.state[own] = {
            "step": torch.tensor(float(arrays["adam"]["steps"][0]), device=own.device),
            **{key: values.to(own.device) for key, values in moments.items()},
        }


def set_weights(model: Halo, weights: Arrays) -> None:
    """Copy `weights`, as they travel, into a model wherever it is."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(unpacked(weights[name], name, model=model))
