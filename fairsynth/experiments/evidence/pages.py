"""Summaries of rows -> the document of one experiment: its tables, who was held out, and the command.

In:  `RowSummary`s of one setting.   Out: Markdown.
Never: arithmetic; a table without who was held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from fairsynth.experiments.evidence import captions
from fairsynth.experiments.evidence.breakdown import both_levels, by_group, by_site
from fairsynth.experiments.evidence.charts import Chart
from fairsynth.experiments.evidence.counted import THRESHOLDS
from fairsynth.experiments.evidence.overview import asked
from fairsynth.experiments.evidence.summary import RowSummary
from fairsynth.experiments.evidence.tables import (
    THRESHOLD_TITLES,
    ablation,
    ceiling,
    comparison,
    table1,
    table2,
    targets,
)
from fairsynth.experiments.evidence.tally import Tally


def page(
    rows: Sequence[RowSummary],
    *,
    table: str,
    command: str,
    tallies: Mapping[str, Sequence[Tally]],
    charts: Sequence[Chart],
) -> str:
    """The document of one experiment in one setting, with its `charts`.

    `command` is what made it, without seeds and sizes, which `rows` have. `table` is `table1`, `table2`, `ablation` or
    `ceiling`; of the `tallies`, the setting's own are shown.
    """
    setting = rows[0].setting
    head = [f"# {_NAMES[table]} (setting {setting})", f"Made by {commands(rows, command)}.", _READING, _who(rows)]
    if table in _JUDGED and tallies.get(setting):
        head.append(f"## How much of what was asked is met\n\n{asked({setting: tallies[setting]})}")
    tail = []
    if charts:
        said = captions.gains(rows)
        tail = ["## Charts", *([said] if said else []), *(chart.markdown for chart in charts)]
    return "\n\n".join(part.strip() for part in (*head, *_PARTS[table](rows), *tail)) + "\n"


def commands(rows: Sequence[RowSummary], command: str) -> str:
    """The commands that make these rows, `command` being what they share: one for all rows with the commonest number
    of seeds, where there are several, and one for each other row."""
    seeds = [len(row.seeds) for row in rows]
    common = max(seeds, key=seeds.count)
    several = seeds.count(common) > 1
    made = [f"`{command} --seeds {common}`"] if several else []
    made += [
        f"`{command} --seeds {number} --real {row.real} --synthetic {row.synthetic}`"
        for row, number in zip(rows, seeds, strict=True)
        if not several or number != common
    ]
    return ", ".join(made)


_JUDGED = ("table1", "ceiling")  # the others have variants of the method, and nothing to hold it to
_NAMES = {
    "table1": "Table 1: disparate impact, worst TPR and F1",
    "table2": "Table 2: what lambda costs and gives",
    "ablation": "Ablation: which part carries the effect",
    "ceiling": "Ceiling: the share of what fresh real patients would give",
}
_READING = (
    "On real held-out patients. mean (sd) over seeds; [95 % interval of the mean over seeds]; where a number is"
    " undefined on some seeds, on how many it is defined. Definitions: `docs/evidence.md`."
)


def _table1_parts(rows: Sequence[RowSummary]) -> list[str]:
    parts = [
        f"## {_at(predictor, threshold)}\n\n{table1(rows, predictor=predictor, threshold=threshold)}"
        for predictor, threshold in _both(rows)
    ]
    main = rows[0]  # the other rows' numbers are beside this page, as JSON and Parquet
    parts += [
        f"## {name}, {main.real:,} real, {main.synthetic:,} synthetic, {_at(predictor, threshold)}\n\n"
        f"{made(main, predictor=predictor, threshold=threshold)}"
        for name, made in (
            ("All approaches", comparison),
            ("Global and site by site", both_levels),
            ("By group", by_group),
            ("By site", by_site),
        )
        for predictor, threshold in _both([main])
    ]
    return [*parts, f"## What was asked\n\n{targets(rows)}"]


def _table2_parts(rows: Sequence[RowSummary]) -> list[str]:
    return [
        f"## {_at(predictor, threshold)}\n\n{table2(rows, predictor=predictor, threshold=threshold)}"
        for predictor, threshold in _both(rows)
    ]


def _ablation_parts(rows: Sequence[RowSummary]) -> list[str]:
    return [
        f"## {row.real:,} real, {row.synthetic:,} synthetic, {predictor.replace('_', ' ')}\n\n"
        f"{ablation(row, predictor=predictor)}"
        for row in rows
        for predictor in row.predictors
    ]


_PARTS: dict[str, Callable[[Sequence[RowSummary]], list[str]]] = {
    "table1": _table1_parts,
    "table2": _table2_parts,
    "ablation": _ablation_parts,
    "ceiling": lambda rows: [ceiling(rows)],
}


def _both(rows: Sequence[RowSummary]) -> Iterator[tuple[str, str]]:
    """Every predictor at every threshold."""
    for predictor in dict.fromkeys(name for row in rows for name in row.predictors):
        for threshold in THRESHOLDS:
            yield predictor, threshold


def _at(predictor: str, threshold: str) -> str:
    return f"{predictor.replace('_', ' ')}, {THRESHOLD_TITLES[threshold]}"


def _who(rows: Sequence[RowSummary]) -> str:
    """Seeds, held-out patients, and who is left out of every minimum."""
    first = rows[0]
    seeds = sorted({len(row.seeds) for row in rows})
    patients = first.everywhere.groups
    lines = [
        f"{' or '.join(map(str, seeds))} seed{'' if seeds == [1] else 's'};"
        f" {sum(one.patients for one in patients):,} real held-out patients of"
        f" {len(first.sites)} sites, {sum(one.positives for one in patients):,} positives (patients: the fewest of any"
        " seed; positives: the mean).",
        *(
            f"- {scope.scope}: INSUFFICIENT (fewer than {first.minimum_positives} held-out positives, mean over"
            f" seeds), left out of every minimum: {', '.join(scope.insufficient)}"
            for scope in first.scopes
            if scope.insufficient
        ),
    ]
    return "\n".join(lines)
