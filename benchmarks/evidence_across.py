"""Tables across settings, for docs/evidence.md: `python -m benchmarks.evidence_across DIR`.

DIR is the `--out` of `fairsynth experiment table1`, of one setting or of several. Markdown to standard output, from
`table1-<setting>.json`; what FairSynth of each site alone gains on the threshold optimiser, seed by
seed, from the Parquet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from fairsynth.experiments.evidence.contrasts import Ceiling, Contrast
from fairsynth.experiments.evidence.measures import ALL_SITES
from fairsynth.experiments.evidence.roles import FAMILIES, LOCAL, METHOD, REAL_ONLY
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.fairness.paired import CeilingShare, Paired, paired

UNDEFINED = "-"
CONTROLS = {
    "copies by the same plan": "same_plan_copies",
    "generator's own labels, same plan": "same_plan_prefix",
    "groups permuted": "permuted_groups",
    "each site alone": "fairsynth_local",
    "pooled": "fairsynth_pooled",
    "threshold optimiser": "threshold_optimiser",
    "threshold optimiser on the teacher": "teacher_optimised",
}


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", type=int, default=2500)
    parser.add_argument("--synthetic", type=int, default=2500)
    asked = parser.parse_args()
    every = [
        row
        for path in sorted(asked.folder.glob("table1-*.json"))
        for row in map(RowSummary.model_validate, json.loads(path.read_text(encoding="utf-8")))
    ]
    rows = [row for row in every if (row.real, row.synthetic) == (asked.real, asked.synthetic)]
    for title, header, lines in (
        ("At a threshold of 0.5", AT_HALF, at_half),
        ("Without a threshold, and at the tuned one", RANKING, ranking),
        ("Worst TPR at 0.5, FairSynth minus each control", list(CONTROLS), controls),
        ("Worst TPR at the tuned threshold, FairSynth minus each control", list(CONTROLS), controls_when_tuned),
        ("|log DI| at 0.5, FairSynth minus each control", list(CONTROLS), controls_of_parity),
        ("Equalised odds difference at 0.5, FairSynth minus each control", list(CONTROLS), controls_of_gaps),
    ):
        print(f"**{title}**\n\n{table(header, [line for row in rows for line in lines(row)])}\n")
    alone = [line for row in rows for line in local_against_optimiser(row, asked.folder)]
    title = "At 0.5, FairSynth of each site alone minus the threshold optimiser"
    print(f"**{title}**\n\n{table(list(LOCAL_METRICS), alone)}\n")
    for title, metric, threshold, digits in BY_SIZE:
        print(f"**{title}, by size**\n\n{by_size(every, metric=metric, threshold=threshold, digits=digits)}\n")


BY_SIZE = (
    ("Worst TPR at 0.5", "worst_tpr", "half", 2),
    ("Worst TPR at the tuned threshold", "worst_tpr", "tuned", 2),
    ("Lowest group AUROC", "lowest_group_auroc", "none", 3),
    ("AUROC within sites", "auroc_within", "none", 3),
)
LOCAL_METRICS = {
    "worst TPR": "worst_tpr",
    r"\|log DI\|": "abs_log_di",
    "equalised odds difference": "equalised_odds_difference",
}
AT_HALF = ["worst TPR: real only", "best data-level baseline", "FairSynth", "oracle", "FairSynth minus that baseline"]
AT_HALF += ["share of the ceiling", r"\|log DI\|, real only -> FairSynth", "F1, real only -> FairSynth"]
RANKING = ["lowest group AUROC: real only", "FairSynth", "oracle", "minus the best data-level baseline"]
RANKING += ["share of the ceiling", "AUROC within sites, minus the best data-level baseline"]
RANKING += ["worst TPR at the tuned threshold, minus the best data-level baseline", "F1 at the tuned threshold"]


def at_half(row: RowSummary) -> Iterator[list[str]]:
    """One line a predictor."""
    for predictor in row.predictors:
        ceiling, contrast = ceiling_of(row, predictor, "half"), contrast_of(row, predictor, "worst_tpr", "half")
        best = contrast.best["data_level"]
        baseline = row.value("worst_tpr", approach=best.baseline, predictor=predictor, threshold="half")
        yield [
            row.setting,
            predictor.replace("_", " "),
            mean(ceiling.real_only),
            mean(baseline),
            f"**{mean(ceiling.method)}**",
            mean(ceiling.oracle),
            gain(best.gain),
            share(ceiling.share),
            moved(row, predictor, "abs_log_di", "half"),
            moved(row, predictor, "f1", "half"),
        ]


def ranking(row: RowSummary) -> Iterator[list[str]]:
    """One line a predictor."""
    for predictor in row.predictors:
        ceiling = ceiling_of(row, predictor, "none")
        yield [
            row.setting,
            predictor.replace("_", " "),
            mean(ceiling.real_only, 3),
            mean(ceiling.method, 3),
            mean(ceiling.oracle, 3),
            gain(contrast_of(row, predictor, "lowest_group_auroc", "none").best["data_level"].gain, 3),
            share(ceiling.share),
            gain(contrast_of(row, predictor, "auroc_within", "none").best["data_level"].gain, 3),
            gain(contrast_of(row, predictor, "worst_tpr", "tuned").best["data_level"].gain),
            moved(row, predictor, "f1", "tuned"),
        ]


def controls(row: RowSummary) -> Iterator[list[str]]:
    """One line a predictor."""
    yield from _controls(row, "worst_tpr")


def controls_when_tuned(row: RowSummary) -> Iterator[list[str]]:
    """One line a predictor."""
    yield from _controls(row, "worst_tpr", "tuned")


def controls_of_parity(row: RowSummary) -> Iterator[list[str]]:
    """One line a predictor."""
    yield from _controls(row, "abs_log_di")


def controls_of_gaps(row: RowSummary) -> Iterator[list[str]]:
    """One line a predictor."""
    yield from _controls(row, "equalised_odds_difference")


def _controls(row: RowSummary, metric: str, threshold: str = "half") -> Iterator[list[str]]:
    for predictor in row.predictors:
        against = contrast_of(row, predictor, metric, threshold).against
        found = [gain(against[name]) if name in against else UNDEFINED for name in CONTROLS.values()]
        yield [row.setting, predictor.replace("_", " "), *found]


def local_against_optimiser(row: RowSummary, folder: Path) -> Iterator[list[str]]:
    """One line a predictor: neither knows more than its own site, so the method is told from what federation adds."""
    values = pl.read_parquet(folder / f"table1-{row.setting}.parquet").filter(
        pl.col("group").is_null(), real=row.real, synthetic=row.synthetic, scope=ALL_SITES, threshold="half"
    )
    for predictor in row.predictors:
        found = [_alone(values.filter(predictor=predictor, metric=metric)) for metric in LOCAL_METRICS.values()]
        yield [row.setting, predictor.replace("_", " "), *found]


def _alone(values: pl.DataFrame) -> str:
    ours, theirs = (
        values.filter(approach=name).sort("seed")["value"].to_numpy() for name in (LOCAL, "threshold_optimiser")
    )
    return gain(paired(ours - theirs)) if len(ours) == len(theirs) > 0 else UNDEFINED


def by_size(rows: Sequence[RowSummary], *, metric: str, threshold: str, digits: int) -> str:
    """FairSynth, and what it gains on the best data-level baseline (* an interval above 0, ** over each of them)."""
    sizes = sorted({(row.real, row.synthetic) for row in rows})
    lines = {(row.setting, predictor): [UNDEFINED] * len(sizes) for row in rows for predictor in row.predictors}
    for row in rows:
        for predictor in row.predictors:
            contrast = contrast_of(row, predictor, metric, threshold)
            own = row.value(metric, approach=METHOD, predictor=predictor, threshold=threshold)
            over = contrast.best["data_level"].gain
            each = [contrast.against[name] for name in FAMILIES["data_level"] if name in contrast.against]
            shown = [one.excludes_zero and (one.mean or 0) > 0 for one in (over, *each)]
            stars = "**" if all(shown) else "*" if shown[0] else ""
            cell = f"{mean(own, digits)} ({UNDEFINED if over.mean is None else f'{over.mean:+.{digits}f}'}{stars})"
            lines[row.setting, predictor][sizes.index((row.real, row.synthetic))] = cell.replace("*", r"\*")
    header = [f"{real:,} + {synthetic:,}" for real, synthetic in sizes]
    return table(header, [[setting, name.replace("_", " "), *cells] for (setting, name), cells in lines.items()])


def contrast_of(row: RowSummary, predictor: str, metric: str, threshold: str) -> Contrast:
    """FairSynth against everything else."""
    wanted = (predictor, metric, threshold)
    return next(one for one in row.contrasts if (one.predictor, one.metric, one.threshold) == wanted)


def ceiling_of(row: RowSummary, predictor: str, threshold: str) -> Ceiling:
    """Of worst TPR, or without a threshold of the lowest group's AUROC."""
    return next(one for one in row.ceilings if (one.predictor, one.threshold) == (predictor, threshold))


def moved(row: RowSummary, predictor: str, metric: str, threshold: str) -> str:
    """From real only to FairSynth."""
    ends = (row.value(metric, approach=name, predictor=predictor, threshold=threshold) for name in (REAL_ONLY, METHOD))
    return " -> ".join(
        mean(value) + (f" ({value.seeds} of {len(row.seeds)} seeds)" if value and value.seeds < len(row.seeds) else "")
        for value in ends
    )


def mean(value: Paired | None, digits: int = 2) -> str:
    """Over seeds."""
    return UNDEFINED if value is None or value.mean is None else f"{value.mean:.{digits}f}"


def gain(value: Paired, digits: int = 2) -> str:
    """With its interval."""
    if value.mean is None:
        return UNDEFINED
    interval = "" if value.low is None else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return f"{value.mean:+.{digits}f}{interval}"


def share(value: CeilingShare) -> str:
    """With its interval."""
    if value.share is None:
        return UNDEFINED
    interval = "" if value.low is None else f" [{value.low:.2f}, {value.high:.2f}]"
    return f"{value.share:.2f}{interval}"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    rule = ["---", "---", *["---:"] * len(header)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (["setting", "predictor", *header], rule, *lines))


if __name__ == "__main__":
    main()
