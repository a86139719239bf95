"""Records -> what a predictor may see. The only way from records to a predictor's inputs; the label is not on it.

In:  `Records`, the shared vocabulary.   Out: `Features`, ragged arrays of token ids; or records without their label.
Never: the LABEL token, the label, randomness.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fairsynth.schemas import IntArray
from fairsynth.visits.layout import TokenLayout, Vocabulary
from fairsynth.visits.records import Records


@dataclass(frozen=True, kw_only=True, eq=False)
class Ragged:
    """Rows of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: IntArray
    offsets: IntArray

    @property
    def lengths(self) -> IntArray:
        """(rows,) the length of each row."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> IntArray:
        """(values,) the row that each value is in."""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int64), self.lengths)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Inputs of B patients.

    visits        codes of each visit, in [0, C)
    patients      offsets of each patient's visits, oldest first: (B + 1,)
    phenotypes    disease labels of each patient, in [0, phenotypes)
    demographics  group, sex and age bin of each patient, in [0, groups + sexes + ages)
    """

    visits: Ragged
    patients: IntArray
    phenotypes: Ragged
    demographics: Ragged


def features(records: Records, *, vocabulary: Vocabulary) -> Features:
    """The inputs of `records`, label left out."""
    phenotypes, demographics = label_visits(records.context, records.context_offsets, layout=vocabulary.layout)
    return Features(
        visits=Ragged(values=records.codes, offsets=records.visit_offsets),
        patients=records.patient_offsets,
        phenotypes=phenotypes,
        demographics=demographics,
    )


def label_visits(tokens: IntArray, offsets: IntArray, *, layout: TokenLayout) -> tuple[Ragged, Ragged]:
    """Phenotypes and demographics (see `Features`) of label visits: row i is `tokens[offsets[i]:offsets[i + 1]]`."""
    is_phenotype = (tokens >= layout.phenotypes.start) & (tokens < layout.phenotypes.stop)
    is_group = (tokens >= layout.groups.start) & (tokens < layout.groups.stop)
    is_person = (tokens >= layout.sexes.start) & (tokens < layout.ages.stop)
    people = np.where(is_group, tokens - layout.groups.start, tokens - layout.sexes.start + _groups(layout))
    return (
        _keep(tokens - layout.phenotypes.start, offsets, is_phenotype),
        _keep(people, offsets, is_group | is_person),
    )


def demographic_tokens(layout: TokenLayout) -> int:
    """The number of distinct group, sex and age tokens."""
    return _groups(layout) + int(layout.ages.stop - layout.sexes.start)


def phenotype_tokens(layout: TokenLayout) -> int:
    """The number of phenotypes."""
    return int(layout.phenotypes.stop - layout.phenotypes.start)


def blind(records: Records, *, vocabulary: Vocabulary) -> Records:
    """The same patients with the label set to 0 and the LABEL token removed, for a predictor to score."""
    kept = _keep(records.context, records.context_offsets, records.context != vocabulary.layout.label)
    return replace(
        records, context=kept.values, context_offsets=kept.offsets, label=np.zeros(len(records), dtype=np.int64)
    )


def _groups(layout: TokenLayout) -> int:
    return int(layout.groups.stop - layout.groups.start)


def _keep(values: IntArray, offsets: IntArray, kept: npt.NDArray[np.bool_]) -> Ragged:
    """The rows without the values that are not `kept`."""
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept, dtype=np.int64)])
    return Ragged(values=values[kept], offsets=before[offsets])
