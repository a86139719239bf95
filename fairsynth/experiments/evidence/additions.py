"""What the other approaches add to a site's real training patients: copies, plain synthetic patients, fresh real ones.

In:  a `Bench`, quotas or a budget.   Out: `Records` by site.
Never: held-out patients. Fresh patients are known to an experiment only: no hospital has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fairsynth.audit.evaluate import balanced_accuracy, blind_scores, confusion
from fairsynth.audit.predictors import LogisticRegression
from fairsynth.augmentation.baselines import cell_balanced, copies_to, double_prioritised
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.schemas import IntArray, SiteId
from fairsynth.seeds import numpy_stream, stream
from fairsynth.synthesis.synthesise import synthesise
from fairsynth.visits.records import Records

HALF = 0.5

BySite = Mapping[SiteId, Records]


def nobody(bench: Bench) -> BySite:
    """No patient."""
    return {site: one.train.take(np.zeros(0, dtype=np.int64)) for site, one in bench.draw.cohorts.items()}


def plain(bench: Bench, *, synthetic: int) -> BySite:
    """Patients of the generator in each site's own mix of group and label."""
    return {
        site: synthesise(
            bench.weights()[site],
            cohort=bench.draw.cohorts[site],
            plan=bench.plan,
            cells=None,
            number=budget,
            seed=stream(bench.seed, "plain", site),
        )
        for site, budget in bench.budgets(synthetic).items()
    }


def by_prefix(bench: Bench, quotas: Mapping[SiteId, IntArray]) -> BySite:
    """Patients of the generator with the quotas' groups and labels as their prefix: no teacher."""
    return {
        site: synthesise(
            bench.weights()[site],
            cohort=bench.draw.cohorts[site],
            plan=bench.plan,
            cells=cells,
            number=int(cells.sum()),
            seed=stream(bench.seed, "prefix", site),
        )
        for site, cells in quotas.items()
    }


def oversampled(bench: Bench, *, synthetic: int) -> BySite:
    """Double-prioritised copies; the increment is chosen on the site's validation patients."""
    return {
        site: double_prioritised(
            bench.draw.cohorts[site].train,
            groups=bench.groups,
            budget=budget,
            criterion=lambda mixed, site=site: _criterion(bench, site, mixed),  # type: ignore[misc]
            seed=stream(bench.seed, "oversampled", site),
        ).copies
        for site, budget in bench.budgets(synthetic).items()
    }


def balanced_copies(bench: Bench, *, synthetic: int) -> BySite:
    """Copies that make the cells equal."""
    return {
        site: cell_balanced(
            bench.draw.cohorts[site].train,
            groups=bench.groups,
            budget=budget,
            seed=stream(bench.seed, "cell balanced", site),
        )
        for site, budget in bench.budgets(synthetic).items()
    }


def same_copies(bench: Bench, quotas: Mapping[SiteId, IntArray]) -> BySite:
    """Copies by the quotas that FairSynth fills: what its plan gives without its patients."""
    return {
        site: copies_to(
            bench.draw.cohorts[site].train, cells=cells, seed=stream(bench.seed, "same copies", site)
        ).records
        for site, cells in quotas.items()
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Fresh:
    """Fresh real patients by site; of them, `elsewhere` came from another site, and `repeated` were there before."""

    added: BySite
    elsewhere: int
    repeated: int


def oracle(bench: Bench, quotas: Mapping[SiteId, IntArray]) -> Fresh:
    """Fresh real patients by the quotas; no generator can do better in expectation, unless it knows more than the site.

    Where a site has not enough fresh patients of a cell, those of other sites follow, each in one site's share only;
    where all sites together have too few, they are repeated (and where they have none, the quota stays short).
    """
    taken: dict[SiteId, list[Records]] = {site: [] for site in quotas}
    elsewhere = repeated = 0
    for cell in np.ndindex(next(iter(quotas.values())).shape):
        pools = {site: _cell(bench, site, cell) for site in quotas}
        short = {}
        for site, cells in quotas.items():
            own = min(int(cells[cell]), len(pools[site]))
            taken[site].append(pools[site].take(np.arange(own)))
            pools[site] = pools[site].take(np.arange(own, len(pools[site])))
            short[site] = int(cells[cell]) - own
        left, place = Records.concatenate(list(pools.values())), 0
        for site, number in short.items():
            others = left.take(np.arange(place, min(place + number, len(left))))
            place += len(others)
            elsewhere += len(others)
            taken[site].append(others)
            again = Records.concatenate(taken[site][-2:])
            if not len(again):  # others came first: theirs once more
                again = Records.concatenate([_cell(bench, each, cell) for each in quotas])
            missing = number - len(others)
            if missing and len(again):
                taken[site].append(again.take(np.resize(np.arange(len(again)), missing)))
                repeated += missing
    added = {site: Records.concatenate(parts) for site, parts in taken.items()}
    return Fresh(added=added, elsewhere=elsewhere, repeated=repeated)


def fresh(bench: Bench, *, synthetic: int) -> BySite:
    """As many fresh real patients, whoever they are."""
    return {
        site: bench.draw.fresh[site].take(np.arange(min(budget, len(bench.draw.fresh[site]))))
        for site, budget in bench.budgets(synthetic).items()
    }


def _cell(bench: Bench, site: SiteId, cell: tuple[int, ...]) -> Records:
    """The site's fresh patients of a (group, label), in a random order."""
    records = bench.draw.fresh[site]
    rows = np.flatnonzero((records.group == cell[0]) & (records.label == cell[1]))
    return records.take(numpy_stream(bench.seed, "fresh", site, *cell).permutation(rows))


def _criterion(bench: Bench, site: SiteId, mixed: Records) -> float:
    """Balanced accuracy at 0.5 on the site's validation patients, mean over groups."""
    cohort, vocabulary = bench.draw.cohorts[site], bench.draw.vocabulary
    fitted = LogisticRegression().fit(mixed, vocabulary=vocabulary, settings=bench.settings, seed=bench.seed)
    predicted = blind_scores(fitted, cohort.validation, vocabulary=vocabulary) >= HALF
    return balanced_accuracy(
        confusion(predicted, label=cohort.validation.label, group=cohort.validation.group, groups=bench.groups)
    )
