"""What sizes suit gradient boosting: `python -m benchmarks.boosting --work FOLDER [--quick]` (docs/augmentation.md).

Each candidate learns from random training sets of Diabetes-130 (real patients only) and is judged on all validation
patients, by log loss. Then every predictor, as it is, learns from 2,000 and ranks the held-out patients, who had no
part in the choice.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.fidelity_data import cohort_of
from fairsynth.audit.boosting import GradientBoosting
from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.fitting import FitSettings, Predictor
from fairsynth.audit.predictors import PREDICTORS
from fairsynth.seeds import numpy_stream
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.records import Records

OURS = GradientBoosting()
CANDIDATES: Mapping[str, Predictor] = {
    "scikit-learn's defaults": GradientBoosting(
        trees=100, learning_rate=0.1, leaves=31, smallest_leaf=20, penalty=0.0, tokens_share=1.0
    ),
    "no L2, 20 patients a leaf": replace(OURS, penalty=0.0, smallest_leaf=20),
    "20 patients a leaf": replace(OURS, smallest_leaf=20),
    "as it is": OURS,
    "5 patients a leaf": replace(OURS, smallest_leaf=5),
    "4 leaves": replace(OURS, leaves=4),
    "splits see all tokens": replace(OURS, tokens_share=1.0),
    "logistic regression": PREDICTORS["logistic_regression"],
}


def judged(
    predictor: Predictor, *, train: Records, patients: Records, cohort: Cohort, seed: int
) -> tuple[float, float]:
    """Log loss and AUROC on `patients` of a predictor trained on `train`."""
    vocabulary = cohort.vocabulary
    fitted = predictor.fit(train, vocabulary=vocabulary, settings=FitSettings(epochs=1, threads=1), seed=seed)
    scores = blind_scores(fitted, patients, vocabulary=vocabulary)
    return float(log_loss(patients.label, scores, labels=[0, 1])), float(roc_auc_score(patients.label, scores))


def drawn(cohort: Cohort, *, patients: int, repeat: int) -> Records:
    """A random training set; the smaller of one `repeat` is part of the larger."""
    return cohort.train.take(numpy_stream(repeat, "benchmarks", "boosting").permutation(len(cohort.train))[:patients])


def sizes_table(cohort: Cohort, *, sizes: tuple[int, ...], repeats: int) -> list[str]:
    """A Markdown table: mean log loss (mean AUROC) on validation patients, by candidate and training size."""
    lines = [
        "| training patients | " + " | ".join(f"{size:,}" for size in sizes) + " |",
        "| --- " * (len(sizes) + 1) + "|",
    ]
    for name, candidate in CANDIDATES.items():
        cells = []
        for size in sizes:
            found = [
                judged(
                    candidate,
                    train=drawn(cohort, patients=size, repeat=repeat),
                    patients=cohort.validation,
                    cohort=cohort,
                    seed=repeat,
                )
                for repeat in range(repeats)
            ]
            loss, auroc = np.mean(found, axis=0)
            cells.append(f"{loss:.3f} ({auroc:.3f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def ranking_lines(cohort: Cohort, *, size: int, repeats: int) -> list[str]:
    """AUROC of every predictor on held-out patients, lowest to highest over the training sets."""
    lines = []
    for name, predictor in PREDICTORS.items():
        found = sorted(
            judged(
                predictor,
                train=drawn(cohort, patients=size, repeat=repeat),
                patients=cohort.held_out,
                cohort=cohort,
                seed=repeat,
            )[1]
            for repeat in range(repeats)
        )
        lines.append(f"{name}: mean {np.mean(found):.3f}, from {found[0]:.3f} to {found[-1]:.3f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where the prepared cohort is kept")
    parser.add_argument("--quick", action="store_true", help="two sizes, two training sets")
    given = parser.parse_args()
    cohort = cohort_of("diabetes130", work=given.work, patients=0)
    sizes, repeats = ((200, 1_000), 2) if given.quick else ((200, 1_000, 2_000, 5_000, 10_000), 6)
    print("\n".join(sizes_table(cohort, sizes=sizes, repeats=repeats)), flush=True)
    print("\n".join(ranking_lines(cohort, size=2_000, repeats=repeats)))


if __name__ == "__main__":
    main()
