"""Committed rounds: all that the server needs to go on from one, in a folder a round.

In:  a course, the distances of accepted updates, the round's journal line.   Out: `rounds/<arm>-<round>/`.
Never: a half-written round under its name; more than the last rounds, and the last one of each arm; pickle.

A round is committed once its folder, written beside it and on disk, has its name; then the journal tells of it. Each
folder has a copy of the journal until then, so that a damaged journal can be restored. A folder that is not as it was
written is not used: the round before it is, and the rounds after that are asked again (docs/resume.md).
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt
from pydantic import ValidationError as PydanticError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fairsynth import artefacts
from fairsynth.config import Strict, StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.fairness.damping import Steering
from fairsynth.federation.course import Course, Model
from fairsynth.federation.journal import Event, text_of
from fairsynth.federation.messages import FIRST, SECOND, WEIGHT
from fairsynth.federation.plans import ARMS, plan_sha256
from fairsynth.federation.server_folder import ROUNDS
from fairsynth.generator.train import Moments
from fairsynth.schemas import Arrays, FloatArray

KEPT = 3
_STATE, _ARRAYS, _JOURNAL = "state.json", "state.safetensors", "journal.jsonl"
_NAME = re.compile(rf"({'|'.join(ARMS)})-(\d{{5}})")
_COUNTS, _BEGUN, _SLOPES = "counts", "begun", "slopes"


class _State(Strict):
    """`state.json`: what of a committed round is no array."""

    arm: str
    done: PositiveInt
    position: PositiveInt  # of the round's line in the journal
    event: dict[str, Any]  # that line
    order: tuple[str, ...]  # of the weights: sums over them are the same only in the same order
    strength: float | None = None
    norms: dict[str, tuple[float, ...]] = {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Committed:
    """A round as it was committed: where an arm stood, how far updates went, and the journal up to its line."""

    course: Course
    norms: dict[str, tuple[float, ...]]
    position: NonNegativeInt
    journal: bytes

    @property
    def name(self) -> str:
        """The folder's name."""
        return _name(self.course.model.arm, self.course.done)


class Commits:
    """The committed rounds under `root` of a study."""

    def __init__(self, root: Path, *, plan: StudyPlan, run: str) -> None:
        self._root = root / ROUNDS
        self._inputs = {"plan": plan_sha256(plan), "run": run}

    def save(
        self, course: Course, *, norms: dict[str, tuple[float, ...]], event: Event, position: int, journal: Path
    ) -> None:
        """Commit a round, whose line `event` will stand at `position`; older ones go. Raises ArtefactError on a full
        or broken disk: the rounds before it are untouched.
        """
        model = course.model
        arrays = {f"{WEIGHT}{name}": array for name, array in model.weights.items()}
        if model.moments:
            arrays |= {f"{FIRST}{name}": array for name, array in model.moments.first.items()}
            arrays |= {f"{SECOND}{name}": array for name, array in model.moments.second.items()}
        slopes = model.steering.slopes if model.steering else None
        vectors = {_COUNTS: model.counts, _BEGUN: course.first, _SLOPES: slopes}
        arrays |= {name: array for name, array in vectors.items() if array is not None}
        state = _State(
            arm=model.arm,
            done=course.done,
            position=position,
            event=json.loads(json.dumps(event)),
            order=tuple(model.weights),
            strength=model.steering.strength if model.steering else None,
            norms=norms,
        )
        name = _name(model.arm, course.done)
        try:
            with artefacts.new(self._root, kind=name, inputs=self._inputs) as folder:
                save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / _ARRAYS)
                artefacts.write_text(folder / _STATE, state.model_dump_json() + "\n")
                shutil.copyfile(journal, folder / _JOURNAL)
        except (OSError, SafetensorError):  # of a full disk too, the one or the other
            raise ArtefactError.of(
                "a round could not be written",
                where=str(self._root / name),
                expected="room and permission to write",
                do="make room, then go on with `fairsynth study ... --resume`: earlier rounds are kept",
            ) from None
        self._prune()

    def all(self) -> tuple[list[Committed], list[str]]:
        """The sound rounds, oldest first, and the names of those that are not as they were written."""
        sound, spoilt = [], []
        for path in self._folders():
            try:
                sound.append(self._read(path))
            except (ArtefactError, OSError):  # of a disk that cannot be read, too
                spoilt.append(path.name)
        return sound, spoilt

    def names(self) -> list[str]:
        """The folders' names, oldest first."""
        return [path.name for path in self._folders()]

    def drop(self, names: list[str]) -> None:
        """Remove rounds that are not used."""
        for name in names:
            shutil.rmtree(self._root / name)

    def clear(self) -> None:
        """Remove all rounds."""
        if self._root.exists():
            shutil.rmtree(self._root)

    def _prune(self) -> None:
        folders = self._folders()
        last = {path.name.rpartition("-")[0]: path for path in folders}
        for path in folders[:-KEPT]:
            if path not in last.values():
                shutil.rmtree(path)

    def _folders(self) -> list[Path]:
        """The folders of rounds, oldest first."""
        found = [path for path in self._root.glob("*") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (ARMS.index(path.name.rpartition("-")[0]), path.name))

    def _read(self, path: Path) -> Committed:
        """Raises ArtefactError unless the folder is as it was written, and of this study."""
        manifest = artefacts.read_manifest(path, kind=path.name, verify=True)
        try:
            state = _State.model_validate_json((path / _STATE).read_bytes())
            arrays: Arrays = load_file(path / _ARRAYS)
            told = (path / _JOURNAL).read_bytes() + text_of(state.event)
            if manifest["inputs"] != self._inputs or path.name != _name(state.arm, state.done):
                raise ValueError
            course = _course(state, arrays)
        except (OSError, KeyError, ValueError, PydanticError, SafetensorError):
            raise ArtefactError.of("not a committed round", where=str(path), expected="as it was written") from None
        return Committed(course=course, norms=state.norms, position=state.position, journal=told)


def _course(state: _State, arrays: Arrays) -> Course:
    """Raises KeyError when an array is missing."""

    def named(prefix: str) -> Arrays:
        return {name: arrays[f"{prefix}{name}"] for name in state.order}

    def vector(name: str) -> FloatArray | None:
        return arrays[name].astype(np.float64) if name in arrays else None

    moments = None
    if any(name.startswith(FIRST) for name in arrays):
        moments = Moments(first=named(FIRST), second=named(SECOND))
    slopes, steering = vector(_SLOPES), None
    if slopes is not None and state.strength is not None:
        steering = Steering(slopes=slopes, strength=state.strength)
    model = Model(arm=state.arm, weights=named(WEIGHT), counts=vector(_COUNTS), moments=moments, steering=steering)
    return Course(model=model, done=state.done, first=vector(_BEGUN))


def _name(arm: str, done: int) -> str:
    return f"{arm}-{done:05d}"
