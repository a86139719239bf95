"""A pool and a seed -> who trains, who validates, who is held out, and who is fresh, at every site.

In:  a `Pool`, a seed, the number of real training patients of all sites together.   Out: `Draw`.
Never: a patient in two roles; a code in the vocabulary that fewer than the plan's `minimum_patients` training
patients of every site carry.

Half of a site's patients are held out, whatever the size. Of the others in their random order, the first train, the
next half as many validate, and the rest are fresh: what the oracle may add. Training patients of a smaller size are
among those of a larger one, and sizes of sites keep their share in the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fairsynth import seeds
from fairsynth.errors import ConfigError
from fairsynth.experiments.evidence.pool import Pool
from fairsynth.schemas import IntArray, SiteId
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

HELD_OUT = 0.5
VALIDATION = 0.5  # validation patients for each training patient


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """One seed's patients. `cohorts` hold each site's training, validation and held-out patients, `fresh` the
    others."""

    vocabulary: Vocabulary
    cohorts: Mapping[SiteId, Cohort]
    fresh: Mapping[SiteId, Records]

    @property
    def sites(self) -> tuple[SiteId, ...]:
        """In their order."""
        return tuple(self.cohorts)

    @cached_property
    def smallest(self) -> SiteId:
        """The site with the fewest training patients."""
        return min(self.sites, key=lambda site: len(self.cohorts[site].train))

    def pooled(self) -> Cohort:
        """All sites as one: what no consortium may do."""
        parts = {
            name: Records.concatenate([getattr(one, name) for one in self.cohorts.values()])
            for name in ("train", "validation", "held_out")
        }
        return Cohort(vocabulary=self.vocabulary, **parts)


def draw(pool: Pool, *, real: int, seed: int) -> Draw:
    """`real` training patients of all sites together, up to the rounding of each site's share.

    Raises ConfigError when the pool has too few patients, or no code that enough of the training patients carry.
    """
    everyone = sum(len(records) for records in pool.sites.values())
    roles = {
        site: _roles(records, train=round(real * len(records) / everyone), seed=seeds.stream(seed, "draw", site))
        for site, records in pool.sites.items()
    }
    codes = sorted({code for parts in roles.values() for code in _common(parts["train"], pool)})
    if not codes:
        least = pool.study.vocabulary.minimum_patients
        raise ConfigError.of("no common code", where=f"{real} training patients", expected=f"{least} patients with one")
    vocabulary = replace(pool.vocabulary, codes=tuple(pool.vocabulary.codes[code] for code in codes))
    kept = {
        site: {name: narrowed(part, pool.vocabulary, codes=np.array(codes)) for name, part in parts.items()}
        for site, parts in roles.items()
    }
    fresh = {site: parts.pop("fresh") for site, parts in kept.items()}
    cohorts = {site: Cohort(vocabulary=vocabulary, **parts) for site, parts in kept.items()}
    return Draw(vocabulary=vocabulary, cohorts=cohorts, fresh=fresh)


def _roles(records: Records, *, train: int, seed: int) -> dict[str, Records]:
    """The patients of each role."""
    order = np.random.default_rng(seed).permutation(len(records))
    first = round(HELD_OUT * len(records))
    ends = np.cumsum([first, train, round(VALIDATION * train)])
    if train < 1 or ends[-1] > len(records):
        raise ConfigError.of(
            "too few patients in the pool", where=f"{train} training patients", expected=f"{ends[-1]} patients in all"
        )
    parts = np.split(order, ends)
    return {
        name: records.take(part) for name, part in zip(("held_out", "train", "validation", "fresh"), parts, strict=True)
    }


def _common(train: Records, pool: Pool) -> IntArray:
    """Codes that enough of the training patients carry."""
    pairs = np.unique(np.stack([train.visit_patient[_rows(train)], train.codes]), axis=1)
    carriers = np.bincount(pairs[1], minlength=len(pool.vocabulary.codes))
    return np.flatnonzero(carriers >= pool.study.vocabulary.minimum_patients)


def _rows(records: Records) -> IntArray:
    """(K,) the visit of each code."""
    return np.repeat(np.arange(records.visits), np.diff(records.visit_offsets))


def narrowed(records: Records, vocabulary: Vocabulary, *, codes: IntArray) -> Records:
    """`records` of `vocabulary` with the code tokens `codes` (sorted) only, numbered anew; other codes are dropped."""
    place = np.full(len(vocabulary.codes), -1, dtype=np.int64)
    place[codes] = np.arange(len(codes))
    kept = place[records.codes] >= 0
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept, dtype=np.int64)])
    return replace(
        records,
        codes=place[records.codes[kept]],
        visit_offsets=before[records.visit_offsets],
        context=records.context - len(vocabulary.codes) + len(codes),
    )
