"""How often is the no-harm verdict wrong? `python -m benchmarks.no_harm [--trials N] [--json PATH]`.

Each trial is one site, drawn from a process whose truth is known: held-out patients of four groups, and K models of
each of two approaches. A patient's latent score is its risk, a hardness that all models share, a habit that all models
of one approach share, what one model makes of its group, and noise. Augmenting adds `lift` to the positives outside the
largest group (its gain) and `alarm` to everybody's negatives (its price). Printed: the true changes, and how often each
verdict was given, from seeds alone and with the bootstrap over patients.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fairsynth.fairness.paired_patients import HeldOut, Scores, differences, redraw_differences
from fairsynth.fairness.verdict import Change, Verdict, verdict
from fairsynth.schemas import FloatArray, Group, IntArray
from fairsynth.seeds import numpy_stream

GROUPS = tuple(Group(name) for name in ("largest", "second", "third", "fourth"))
SHARES = (0.55, 0.25, 0.12, 0.08)
PREVALENCE = 0.25
RISK = 2.0  # how far the latent scores of positives lie above those of negatives
NEGLECT = 0.5  # how far below that the positives outside the largest group lie
HARDNESS, HABIT = 0.9, 0.4  # standard deviations over patients: shared by all models, by those of one approach
MODEL, NOISE = 0.12, 0.3  # of one model in one group, of one score
METRICS = ("worst_tpr", "f1", "abs_log_di")
TRUTH = 200_000  # patients from which true changes are taken


@dataclass(frozen=True, kw_only=True)
class Site:
    """What augmenting does at a site, and what the site has to find out with."""

    lift: float
    alarm: float
    patients: int = 1000  # held out
    seeds: int = 5


Luck = tuple[np.random.Generator, np.random.Generator]


def draw(site: Site, *, rng: np.random.Generator, luck: Luck | None = None) -> tuple[Scores, Scores, HeldOut]:
    """One site's augmented and real-only scores, and its held-out patients; `luck` is that of the two approaches."""
    group = rng.choice(len(GROUPS), size=site.patients, p=SHARES).astype(np.int64)
    label = (rng.random(site.patients) < PREVALENCE).astype(np.int64)
    risk = RISK * label - NEGLECT * label * (group > 0) - 1 + HARDNESS * rng.normal(size=site.patients)
    augmented, real = (
        _scores(risk + move, group=group, seeds=site.seeds, rng=one)
        for move, one in zip(_moves(site, label, group), luck or rng.spawn(2), strict=True)
    )
    reference = np.arange(len(GROUPS)) == 0
    return augmented, real, HeldOut(label=label, group=group, names=GROUPS, reference=reference)


def _moves(site: Site, label: IntArray, group: IntArray) -> Iterator[FloatArray]:
    yield site.lift * ((label == 1) & (group > 0)) + site.alarm * (label == 0)
    yield np.zeros(len(label))


def _scores(risk: FloatArray, *, group: IntArray, seeds: int, rng: np.random.Generator) -> Scores:
    model = MODEL * rng.normal(size=(seeds, len(GROUPS)))[:, group]  # (K, B)
    habit = HABIT * rng.normal(size=len(risk))  # whom all models of this approach over- or underrate
    latent = risk + habit + model + NOISE * rng.normal(size=(seeds, len(risk)))
    return Scores(scores=1 / (1 + np.exp(-latent)), thresholds=np.full(seeds, 0.5))


def truth(site: Site) -> dict[str, float]:
    """The true changes: on many patients and models, with the same luck for both approaches, so that it cancels."""
    many = Site(lift=site.lift, alarm=site.alarm, patients=TRUTH, seeds=20)
    luck = (numpy_stream(0, "no-harm", "luck"), numpy_stream(0, "no-harm", "luck"))
    augmented, real, held_out = draw(many, rng=numpy_stream(0, "no-harm", "truth"), luck=luck)
    found = differences(augmented, real, held_out=held_out)
    return {name: round(float(found[name].mean()), 4) for name in METRICS}


def trial(site: Site, *, rng: np.random.Generator, replicates: int = 200) -> dict[str, Verdict]:
    """The verdicts of one site: from seeds alone, and with the bootstrap over seeds and patients."""
    augmented, real, held_out = draw(site, rng=rng)
    seeds = differences(augmented, real, held_out=held_out)
    drawn = redraw_differences(augmented, real, held_out=held_out, replicates=replicates, rng=rng)
    return {
        "seeds": judge({name: Change(seeds=seeds[name]) for name in METRICS}),
        "patients": judge({name: Change(seeds=seeds[name], replicates=drawn[name]) for name in METRICS}),
    }


def judge(changes: dict[str, Change]) -> Verdict:
    """The verdict on the changes of `METRICS`."""
    return verdict(gain=changes["worst_tpr"], f1=changes["f1"], abs_log_di=changes["abs_log_di"])


def rates(site: Site, *, trials: int) -> dict[str, dict[str, float]]:
    """How often each verdict was given, by what it was made from."""
    counted: dict[str, Counter[str]] = {"seeds": Counter(), "patients": Counter()}
    for number in range(trials):
        for way, found in trial(site, rng=numpy_stream(0, "no-harm", number)).items():
            counted[way][found.decision] += 1
    return {way: {name: count / trials for name, count in counts.items()} for way, counts in counted.items()}


def main() -> None:
    """A line for each site of the table in docs/no-harm.md."""
    parser = argparse.ArgumentParser(description="how often is the no-harm verdict wrong?")
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    rows = []
    for lift, alarm in SETTINGS:
        for patients in (1000, 4000):
            site = Site(lift=lift, alarm=alarm, patients=patients)
            rows.append({"site": asdict(site), "truth": truth(site), "rates": rates(site, trials=arguments.trials)})
            print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"trials": arguments.trials, "rows": rows}, indent=1) + "\n")


SETTINGS = ((0.0, 0.0), (0.0, -0.1), (0.2, 0.07), (0.3, 0.105), (0.5, 0.155), (0.3, 0.194), (0.3, 0.3))  # lift, alarm


if __name__ == "__main__":
    main()
