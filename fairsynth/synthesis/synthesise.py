"""Generator -> synthetic patients, of the (group, label) cells that a site asks for or of the site's own group mix.

In:  the generator's weights, the site's cohort (its vocabulary and its groups), quotas by cell.   Out: `Records`.
Never: a patient of the cohort in the result; files; a release, so what is made here stays at the site.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError, ConfigError, Problem
from fairsynth.generator.sample import FREE, Conditions, sample
from fairsynth.generator.train import threads
from fairsynth.schemas import Arrays, IntArray
from fairsynth.seeds import numpy_stream
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


def synthesise(
    weights: Arrays, *, cohort: Cohort, plan: StudyPlan, cells: IntArray | None, number: int, seed: int
) -> Records:
    """`number` synthetic patients; with `cells` (G, 2), exactly `cells[g, y]` of group g and label y.

    The label visit comes first in a record, so that a cell is a prefix and conditioning on it is exact. With `cells`
    None the groups are drawn from the site's training patients, and the generator draws the label: the generator is
    shared, and left to itself it would give a children's hospital the adults of another site. Raises ConfigError when
    `cells` does not fit the plan or does not sum to `number`, ArtefactError when the generator did not give what was
    asked for.
    """
    vocabulary = cohort.vocabulary
    if cells is None:
        conditions = _own_mix(cohort.train, number=number, seed=seed)
    else:
        conditions = _quotas(cells, number=number, groups=len(plan.groups.names))
    with threads(plan.training.threads):
        records = sample(weights, vocabulary=vocabulary, config=plan.generator, conditions=conditions, seed=seed)
    if problems := check_synthetic(records, vocabulary=vocabulary, conditions=conditions):
        raise ArtefactError(problems)
    return records


def _own_mix(train: Records, *, number: int, seed: int) -> Conditions:
    """Groups as in the site's training patients, labels left to the generator."""
    group = numpy_stream(seed, "own mix").choice(train.group, size=number)
    return Conditions(group=group, label=np.full(number, FREE, dtype=np.int64))


def _quotas(cells: IntArray, *, number: int, groups: int) -> Conditions:
    """One condition a patient, cells in reading order."""
    if cells.shape != (groups, 2) or (cells < 0).any() or int(cells.sum()) != number:
        raise ConfigError.of(
            "quotas do not fit", where="synthesise", expected=f"({groups}, 2) counts of 0 or more that sum to {number}"
        )
    group, label = np.indices(cells.shape)
    quotas = cells.ravel()
    return Conditions(group=np.repeat(group.ravel(), quotas), label=np.repeat(label.ravel(), quotas))


def check_synthetic(records: Records, *, vocabulary: Vocabulary, conditions: Conditions) -> list[Problem]:
    """What is wrong with generated patients: their number, their cells, or tokens that contradict the cells."""
    where, again = "synthetic patients", "train the generator again"
    if len(records) != len(conditions.group):
        return [Problem(what="number not as asked for", where=where, expected=str(len(conditions.group)), do=again)]
    problems = []
    for name, asked, got in (
        ("group", conditions.group, records.group),
        ("label", conditions.label, records.label),
    ):
        if wrong := int(((asked != FREE) & (asked != got)).sum()):
            problems.append(Problem(what=f"{name} not as asked for", where=f"{wrong} {where}", do=again))
    if wrong := len(records) - int(_told_by_context(records, vocabulary).sum()):
        expected = "one group token, and LABEL if and only if the label is 1"
        problems.append(
            Problem(what="label visit contradicts the cell", where=f"{wrong} {where}", expected=expected, do=again)
        )
    return problems


def _told_by_context(records: Records, vocabulary: Vocabulary) -> npt.NDArray[np.bool_]:
    """(B,) whether a record's context tokens name its group, no other group, and its label."""
    layout = vocabulary.layout
    patient = np.repeat(np.arange(len(records)), np.diff(records.context_offsets))
    is_group = (records.context >= layout.groups.start) & (records.context < layout.groups.stop)
    own_group = is_group & (records.context - layout.groups.start == records.group[patient])
    tokens = np.stack([is_group, own_group, records.context == layout.label])  # (3, M)
    found = np.stack([np.bincount(patient[row], minlength=len(records)) for row in tokens])  # (3, B)
    return np.asarray((found[0] == 1) & (found[1] == 1) & (found[2] == records.label))
