"""What the sites of a study settled together beside the weights, and what a site makes of it at home.

In:  a request's fields and arrays.   Out: `Terms`; at the server, the artefact `terms/`.
Never: a patient; a count of one site alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file, save_file

from fairsynth import artefacts, plain_json
from fairsynth.config import StudyPlan
from fairsynth.errors import ProtocolError
from fairsynth.federation.plans import is_taught, plan_sha256
from fairsynth.generator.priming import rates_at_home, runs
from fairsynth.schemas import Arrays, FloatArray
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.layout import Vocabulary

KIND = "terms"
RUNS, GUIDE = "exclusive.json", "guide.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Guide:
    """Who of the generator's candidates is to have the outcome.

    teacher   (F + 1,) weights of the sites' common logistic regression on the bag of tokens, the last of them the bias
    selected  (G,) the share of a group's candidates that lies above its cut, in (0, 1)
    """

    teacher: FloatArray
    selected: FloatArray

    def arrays(self) -> Arrays:
        """As they travel."""
        return {"teacher": self.teacher, "selected": self.selected}

    @classmethod
    def read(cls, arrays: Arrays, *, vocabulary: Vocabulary) -> Self:
        """The guide in a request's arrays. Raises ProtocolError unless both are there and mean something."""
        teacher = vector(arrays, "teacher", size=columns(vocabulary) + 1)
        selected = vector(arrays, "selected", size=len(vocabulary.groups))
        if not ((selected > 0) & (selected < 1)).all():
            raise ProtocolError.of("shares out of range", where="selected", expected="in (0, 1)")
        return cls(teacher=teacher, selected=selected)


def columns(vocabulary: Vocabulary) -> int:
    """F, what the bag of tokens says of a patient: every code and every context token but the label."""
    layout = vocabulary.layout
    return len(vocabulary.codes) + int(layout.context.stop - layout.context.start) - 1


def vector(arrays: Arrays, name: str, *, size: int) -> FloatArray:
    """The array of that name. Raises ProtocolError unless it is float64, of this size, and finite."""
    found = arrays.get(name)
    if found is None or found.dtype != np.float64 or found.shape != (size,):
        raise ProtocolError.of("array missing or of another shape", where=name, expected=f"float64 ({size},)")
    numbers = found.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ProtocolError.of("array that is not finite", where=name, expected="finite numbers")
    return numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """`exclusive` are the numbers of the runs of codes of which no visit of any site has two (`priming.runs`)."""

    exclusive: tuple[int, ...] = ()
    guide: Guide | None = None

    def rates(self, cohort: Cohort, *, plan: StudyPlan) -> FloatArray:
        """(V,) what the site adds to the shared output bias. Raises ProtocolError on a run that does not exist."""
        if not plan.training.primed:
            return rates_at_home(cohort.train, vocabulary=cohort.vocabulary, blocks=None)
        known = runs(cohort.vocabulary)
        if any(not 0 <= run < len(known) for run in self.exclusive):
            raise ProtocolError.of("no such run of codes", where="exclusive", expected=f"below {len(known)}")
        blocks = [known[run] for run in self.exclusive]
        return rates_at_home(cohort.train, vocabulary=cohort.vocabulary, blocks=blocks)


NOTHING = Terms()


def save_terms(root: Path, terms: Terms, *, plan: StudyPlan) -> None:
    """Write the artefact `root/terms`."""
    facts = {"seed": plan.seed, "guided": terms.guide is not None}
    with artefacts.new(root, kind=KIND, inputs={"plan": plan_sha256(plan)}, facts=facts) as folder:
        artefacts.write_json(folder / RUNS, list(terms.exclusive))
        if terms.guide is not None:
            save_file(terms.guide.arrays(), folder / GUIDE)


def load_terms(root: Path, *, plan: StudyPlan) -> Terms:
    """What a study under `root` settled. Raises ArtefactError when the plan asks for terms and they are missing."""
    if not (plan.training.primed or is_taught(plan)):
        return NOTHING
    folder = root / KIND
    artefacts.read_manifest(folder, kind=KIND, verify=True)
    exclusive = tuple(int(run) for run in plain_json.read(folder / RUNS))
    if not (folder / GUIDE).is_file():
        return Terms(exclusive=exclusive)
    arrays = {name: np.asarray(array, dtype=np.float64) for name, array in load_file(folder / GUIDE).items()}
    return Terms(exclusive=exclusive, guide=Guide(**arrays))
