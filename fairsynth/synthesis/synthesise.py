"""Generator -> synthetic patients, of the (group, label) cells that a site asks for or of the site's own mix.

In:  the generator's weights, the site's cohort (vocabulary, and who its patients are), quotas.   Out: `Records`.
Never: a code of a patient of the cohort in the result; files; a release, so what is made here stays at the site.
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

    The label visit comes first in a record, so that group, label, sex and age band are a prefix and conditioning on
    them is exact. With `cells` None, group and label are drawn as they occur in the site's training patients; sex and
    age band always are: the generator is shared, and left to itself it would give a children's hospital the adults of
    another site. Raises ConfigError when `cells` does not fit the plan or does not sum to `number`, ArtefactError when
    the generator did not give what was asked for.
    """
    vocabulary = cohort.vocabulary
    rng = numpy_stream(seed, "conditions")
    if cells is None:
        donors = rng.integers(len(cohort.train), size=number)
        group, label = cohort.train.group[donors], cohort.train.label[donors]
    else:
        group, label = _quotas(cells, number=number, groups=len(plan.groups.names))
    conditions = _with_demographics(group, label, cohort=cohort, rng=rng)
    return _sampled(weights, vocabulary=vocabulary, plan=plan, conditions=conditions, seed=seed)


def synthesise_groups(weights: Arrays, *, cohort: Cohort, plan: StudyPlan, number: IntArray, seed: int) -> Records:
    """`number[g]` synthetic patients of each group, their labels left to the generator; sex and age band as
    `synthesise`.

    Raises ConfigError when `number` does not fit the plan, ArtefactError when the generator did not give these groups.
    """
    vocabulary = cohort.vocabulary
    if number.shape != (len(vocabulary.groups),) or (number < 0).any():
        raise ConfigError.of("numbers do not fit", where="synthesise", expected="a count of 0 or more for each group")
    rng = numpy_stream(seed, "conditions")
    group = np.repeat(np.arange(len(number)), number)
    label = np.full(len(group), FREE, dtype=np.int64)
    conditions = _with_demographics(group, label, cohort=cohort, rng=rng)
    return _sampled(weights, vocabulary=vocabulary, plan=plan, conditions=conditions, seed=seed)


def _sampled(weights: Arrays, *, vocabulary: Vocabulary, plan: StudyPlan, conditions: Conditions, seed: int) -> Records:
    with threads(plan.training.threads):
        records = sample(weights, vocabulary=vocabulary, config=plan.generator, conditions=conditions, seed=seed)
    if problems := check_synthetic(records, vocabulary=vocabulary, conditions=conditions):
        raise ArtefactError(problems)
    return records


def _quotas(cells: IntArray, *, number: int, groups: int) -> tuple[IntArray, IntArray]:
    """(B,) group and label of each patient, cells in reading order."""
    if cells.shape != (groups, 2) or (cells < 0).any() or int(cells.sum()) != number:
        raise ConfigError.of(
            "quotas do not fit", where="synthesise", expected=f"({groups}, 2) counts of 0 or more that sum to {number}"
        )
    group, label = np.indices(cells.shape)
    quotas = cells.ravel()
    return np.repeat(group.ravel(), quotas), np.repeat(label.ravel(), quotas)


def _with_demographics(group: IntArray, label: IntArray, *, cohort: Cohort, rng: np.random.Generator) -> Conditions:
    """The cells, with sex and age band as they occur together in the cell at the site (in the group, if the cell is
    empty): a shared generator has seen the ages of every site.
    """
    train, layout = cohort.train, cohort.vocabulary.layout
    known = {"sex": _token(train, layout.sexes), "age": _token(train, layout.ages)}
    given = {name: np.full(len(group), FREE, dtype=np.int64) for name in known}
    for cell in np.unique(np.stack([group, label], axis=1), axis=0):
        wanted = np.flatnonzero((group == cell[0]) & (label == cell[1]))
        alike = np.flatnonzero((train.group == cell[0]) & (train.label == cell[1]))
        donors = alike if len(alike) else np.flatnonzero(train.group == cell[0])
        if len(donors):
            chosen = rng.choice(donors, size=len(wanted))
            for name, values in known.items():
                given[name][wanted] = values[chosen]
    return Conditions(group=group, label=label, **given)


def _token(records: Records, columns: slice) -> IntArray:
    """(B,) the index within `columns` of each patient's context token, -1 where it has none."""
    found = np.full(len(records), FREE, dtype=np.int64)
    inside = (records.context >= columns.start) & (records.context < columns.stop)
    patient = np.repeat(np.arange(len(records)), np.diff(records.context_offsets))
    found[patient[inside]] = records.context[inside] - columns.start
    return found


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
