"""What each variant does, over settings and predictors: `python -m benchmarks.evidence_variants DIR --table NAME`.

DIR is the `--out` of `fairsynth experiment ablation` or `table2`, of one setting or of several; variants of the
ablation are compared with FairSynth, lambdas of Table 2 with lambda 0. Markdown to standard output: the mean of each
metric, and its difference with a 95 % interval over seeds.

A seed's difference is the mean over the pairs of setting and predictor in which both are defined on every seed. Only
seeds that every setting has are used. Definitions of the metrics: docs/evidence.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl

from fairsynth.audit.summary import ALL_SITES
from fairsynth.experiments.evidence.measures import NO_THRESHOLD, Key
from fairsynth.experiments.evidence.roles import METHOD, ordered, title
from fairsynth.fairness.paired import paired
from fairsynth.schemas import FloatArray

COLUMNS: dict[Key, str] = {
    ("worst_tpr", "half"): "worst TPR at 0.5",
    ("abs_log_di", "half"): r"\|log DI\| at 0.5",
    ("f1", "half"): "F1 at 0.5",
    ("auroc_within", NO_THRESHOLD): "AUROC within sites",
    ("lowest_group_auroc", NO_THRESHOLD): "lowest group AUROC",
    ("worst_tpr", "tuned"): "worst TPR, tuned",
}
AGAINST = {"ablation": METHOD, "table2": "lambda=0"}
PAIR = ["setting", "predictor"]
Row = tuple[int, int]  # real, synthetic patients


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", choices=AGAINST, default="ablation")
    parser.add_argument("--real", type=int, default=2500)
    parser.add_argument("--synthetic", type=int, default=2500)
    asked = parser.parse_args()
    paths = sorted(asked.folder.glob(f"{asked.table}-*.parquet"))
    if not paths:
        sys.exit(
            f"no {asked.table}-*.parquet in {asked.folder}: give the --out of `fairsynth experiment {asked.table}`"
        )
    numbers = overall(pl.concat(map(pl.read_parquet, paths)), row=(asked.real, asked.synthetic))
    if numbers.is_empty():
        sys.exit(f"no seed of {asked.real} + {asked.synthetic} patients that every setting in {asked.folder} has")
    print(table(numbers, against=AGAINST[asked.table]))


def overall(numbers: pl.DataFrame, *, row: Row) -> pl.DataFrame:
    """The metrics of all sites together and no group, on the seeds that every setting has."""
    mine = numbers.filter(
        pl.col("scope") == ALL_SITES, pl.col("group").is_null(), pl.col("real") == row[0], pl.col("synthetic") == row[1]
    )
    settings = mine["setting"].n_unique()
    return mine.filter(pl.col("setting").n_unique().over("seed") == settings)


def table(numbers: pl.DataFrame, *, against: str) -> str:
    """Markdown: a line for each approach, `against` first."""
    others = [name for name in ordered(tuple(numbers["approach"].unique())) if name != against]
    lines = [[title(name), *(cell(numbers, key, name, against) for key in COLUMNS)] for name in (against, *others)]
    heads = [["variant", *COLUMNS.values()], ["---", *["---:"] * len(COLUMNS)]]
    pairs, seeds = numbers.select(PAIR).n_unique(), numbers["seed"].n_unique()
    said = f"{pairs} pairs of setting and predictor, {seeds} {'seed' if seeds == 1 else 'seeds'}"
    return "\n".join([said, "", *(f"| {' | '.join(line)} |" for line in (*heads, *lines))])


def cell(numbers: pl.DataFrame, key: Key, approach: str, against: str) -> str:
    """`0.44 (+0.02 [-0.01, 0.05], 6 of 9)`: its mean, the difference, and in how many pairs it is the higher one."""
    mine, theirs, pairs = matched(numbers, key, approach, against)
    if not len(mine):
        return "-"
    if approach == against:
        return f"{mine.mean():.3f}"
    difference, higher = paired((mine - theirs).mean(axis=0)), int(((mine - theirs).mean(axis=1) > 0).sum())
    interval = "" if difference.low is None else f" [{difference.low:.3f}, {difference.high:.3f}]"
    of = f"{higher}" if len(mine) == pairs else f"{higher} of {len(mine)}"
    return f"{mine.mean():.3f} ({difference.mean:+.3f}{interval}, {of})"


def matched(numbers: pl.DataFrame, key: Key, approach: str, against: str) -> tuple[FloatArray, FloatArray, int]:
    """(pairs, seeds) of both, for pairs in which both are finite on every seed; and how many pairs there are."""
    asked = numbers.filter(pl.col("metric") == key[0], pl.col("threshold") == key[1])
    seeds = asked["seed"].n_unique()
    finite = asked.filter(pl.col("value").is_finite())
    both = finite.filter(pl.col("approach") == approach).join(
        finite.filter(pl.col("approach") == against), on=[*PAIR, "seed"], suffix="_other"
    )
    whole = both.filter(pl.len().over(PAIR) == seeds).sort(*PAIR, "seed")
    shape = (-1, seeds) if len(whole) else (0, seeds)
    mine, theirs = (whole[name].to_numpy().astype(np.float64).reshape(shape) for name in ("value", "value_other"))
    return mine, theirs, asked.select(PAIR).n_unique()


if __name__ == "__main__":
    main()
