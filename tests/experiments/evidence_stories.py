"""Made-up trials of known truth: binormal scores, whose rates follow from a mean.

A positive of group g at site s has a latent score of mean `skill` + what the approach lifts it by, a negative of mean
-`skill`, both of variance 1; the score is its logistic. So TPR at 0.5 is Phi(skill + lift).
"""

from dataclasses import dataclass, field

import numpy as np

from fairsynth.experiments.evidence.cells import Axes, Cell

SITES = ("big", "small")
GROUPS = ("white", "black", "tiny")
PATIENTS = {"big": (1600, 800, 60), "small": (800, 400, 24)}  # by group
POSITIVES = 0.25  # exactly this share of each group at each site, so "tiny" has 15 + 6 positives
BLACK = 1


@dataclass
class Approach:
    """How an approach treats positives."""

    skill: float = 0.3
    lift: float = 0.0  # of "black"
    black_site: dict = field(default_factory=dict)  # site -> further lift of "black" there
    overlook: float = 0.0  # subtracted from everybody's latent score: a shift of the threshold


def rows(approach, *, seed, name, patients=PATIENTS):
    """site, group, label, score of B patients; the same patients for every approach of a seed."""
    parts = []
    for s, site in enumerate(SITES):
        for g, number in enumerate(patients[site]):
            label = np.zeros(number, dtype=np.int64)
            label[: round(POSITIVES * number)] = 1
            parts.append((np.full(number, s), np.full(number, g), label))
    site, group, label = (np.concatenate(part) for part in zip(*parts, strict=True))
    black = (group == BLACK) & (label == 1)
    mean = approach.skill * (2 * label - 1) + approach.lift * black - approach.overlook
    for place, extra in approach.black_site.items():
        mean = mean + extra * (black & (site == SITES.index(place)))
    own = np.random.default_rng([seed, *name.encode()])
    return site, group, label, 1 / (1 + np.exp(-(mean + own.normal(size=len(label)))))


def histograms(site, group, label, score):
    """(S, G, 2, 200)."""
    table = np.zeros((len(SITES), len(GROUPS), 2, 200), dtype=np.int64)
    np.add.at(table, (site, group, label, np.minimum((score * 200).astype(int), 199)), 1)
    return table


def trial(
    approaches,
    *,
    seed,
    predictors=("transformer",),
    absent=(),
    patients=PATIENTS,
    real=1000,
    synthetic=2500,
    repeated=0,
):
    """A cell of `approaches` (name -> Approach); pairs in `absent` hold zeros."""
    shape = (len(approaches), len(predictors), len(SITES), len(GROUPS), 2)
    held_out, validation = np.zeros((*shape, 200), dtype=np.int64), np.zeros((*shape, 200), dtype=np.int64)
    for a, (name, approach) in enumerate(approaches.items()):
        for p, predictor in enumerate(predictors):
            if (name, predictor) not in absent:
                held_out[a, p] = histograms(*rows(approach, seed=seed, name=name + predictor, patients=patients))
                validation[a, p] = histograms(*rows(approach, seed=seed + 10_000, name=name + predictor))
    axes = Axes(
        setting="a",
        real=real,
        synthetic=synthetic,
        seed=seed,
        approaches=tuple(approaches),
        predictors=predictors,
        sites=SITES,
        groups=GROUPS,
        reference=("white",),
    )
    train = np.array([[[300, 100], [150, 50], [9, 3]], [[60, 20], [30, 10], [3, 1]]])
    added = np.zeros(shape, dtype=np.int64)
    return Cell(
        axes=axes,
        held_out=held_out,
        validation=validation,
        added=added,
        train=train,
        facts={"oracle_repeated": repeated},
    )


WINNING = {
    "real_only": Approach(lift=-0.9),
    "plain_synthetic": Approach(lift=-0.8),
    "double_prioritised": Approach(lift=-0.7),
    "cell_balanced": Approach(lift=-0.6),
    "reweighing": Approach(lift=-0.7),
    "same_plan_copies": Approach(lift=-0.5),
    "fairsynth": Approach(lift=-0.05),
    "fairsynth_local": Approach(lift=-0.5),
    "fairsynth_pooled": Approach(lift=-0.05),
    "permuted_groups": Approach(lift=-0.9),
    "oracle": Approach(lift=0.0),
}


def trials(approaches=WINNING, *, seeds=5, **more):
    """`seeds` cells."""
    return [trial(approaches, seed=seed, **more) for seed in range(seeds)]


def target(summary, name, *, threshold="half"):
    """What became of one target."""
    return next(one for one in summary.targets if (one.name, one.threshold) == (name, threshold))
