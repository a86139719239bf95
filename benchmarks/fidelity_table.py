"""The figures of `benchmarks.fidelity` against their targets, and as Markdown for docs/fidelity.md.

In:  what `fidelity.measure` found.   Out: verdicts; a table.
Never: a figure that was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PREVALENCE, BIGRAMS = 0.98, 0.90  # of the ceiling's R2, at least
LOSS_OF_AUROC = 0.02  # under training on real patients, at most
GROUP_GAP = 0.05  # of R2 as a share of the ceiling's, under that of all patients, at most
LEAST_CEILING = 0.5  # R2 that real patients must reach for a group to be judged by: below it, the group is too small
STATISTICS = {
    "visit_prevalence": PREVALENCE,
    "record_prevalence": PREVALENCE,
    "same_visit_bigrams": BIGRAMS,
    "sequential_bigrams": BIGRAMS,
}


def targets(found: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each target holds for the means over seeds. A group is judged by the statistics that suffice for it."""
    shares = {name: share(found, f"r2/whole/{name}") for name in STATISTICS}
    verdicts = {f"{name}_share_of_ceiling": shares[name] >= least for name, least in STATISTICS.items()}
    verdicts["auroc_within_0.02"] = lost_auroc(found) <= LOSS_OF_AUROC
    for group in found["groups"]:
        verdicts[f"group_{group}"] = all(
            share(found, f"r2/{group}/{name}") >= shares[name] - GROUP_GAP
            for name in STATISTICS
            if f"r2/{group}/{name}" not in insufficient(found)
        )
    return verdicts


def insufficient(found: Mapping[str, Any]) -> list[str]:
    """The R2 of groups that even real patients do not reach `LEAST_CEILING` of."""
    names = [f"r2/{group}/{name}" for group in found["groups"] for name in STATISTICS]
    return [name for name in names if not found["figures"][name]["real"] >= LEAST_CEILING]


def share(found: Mapping[str, Any], name: str) -> float:
    """A figure of synthetic patients as a share of the ceiling's."""
    figure = found["figures"][name]
    return float(figure["synthetic"][0]) / float(figure["real"])


def lost_auroc(found: Mapping[str, Any]) -> float:
    """AUROC taught by real patients minus that taught by synthetic ones."""
    figure = found["figures"]["auroc"]
    return float(figure["real"]) - float(figure["synthetic"][0])


def markdown(name: str, found: Mapping[str, Any]) -> str:
    """All figures of a data set."""
    patients = found["patients"]
    head = (
        f"### {name}\n\n{patients['train']:,} real training patients, {patients['validation']:,} to stop early, "
        f"{patients['held_out']:,} held out; V = {found['tokens']:,}; {found['seeds']} seeds.\n"
    )
    parts = [head, _table(_whole(found)), _table(_groups(found)), _table(_likelihood(found)), _table(_small(found))]
    few = ", ".join(_words(name.removeprefix("r2/")) for name in insufficient(found))
    failed = [target for target, holds in targets(found).items() if not holds]
    missed = f"Targets missed: {', '.join(failed) or 'none'}."
    return "\n".join([*parts, f"{missed} INSUFFICIENT (ceiling under {LEAST_CEILING}): {few or 'none'}.\n"])


Row = tuple[str, ...]


def _whole(found: Mapping[str, Any]) -> Iterator[Row]:
    yield ("figure", "synthetic [95 % interval]", "real (ceiling)", "synthetic / real")
    figures = found["figures"]
    for name in STATISTICS:
        key = f"r2/whole/{name}"
        yield (f"R2 {_words(name)}", _range(figures[key]), f"{figures[key]['real']:.4f}", f"{share(found, key):.3f}")
    auroc = figures["auroc"]
    yield ("AUROC taught", _range(auroc), f"{auroc['real']:.4f}", f"{-lost_auroc(found):+.4f}")
    for name in ("visits_a_record", "codes_a_visit"):
        key = f"distance/{name}"
        mean, sd = (figures[f"{key}/{figure}"]["synthetic"][0] for figure in ("mean", "sd"))
        real_mean, real_sd = (figures[f"{key}/real_{figure}"]["synthetic"][0] for figure in ("mean", "sd"))
        yield (f"{_words(name)}, mean (SD)", f"{mean:.3f} ({sd:.3f})", f"{real_mean:.3f} ({real_sd:.3f})", "")
    yield from _distances(figures)
    for key in ("nearest/mean", "nearest/first_percentile", "copied/visits", "copied/records"):
        yield (f"training patients: {_words(key)}", _range(figures[key]), f"{figures[key]['real']:.4f}", "")


def _distances(figures: Mapping[str, Any]) -> Iterator[Row]:
    """Wasserstein distances, one row for all laboratory tests."""
    names = [name for name in figures if name.startswith("distance/") and name.endswith("/wasserstein_sd")]
    tests = [name for name in names if name.startswith("distance/LAB//")]
    for name in names:
        if name not in tests:
            label = f"Wasserstein distance (SDs), {_words(name.split('/')[1])}"
            yield (label, _range(figures[name]), f"{figures[name]['real']:.4f}", "")
    if tests:
        made, real = (
            [float(value) for value in side] for side in zip(*(_both(figures[name]) for name in tests), strict=True)
        )
        label = f"the same of {len(tests)} laboratory tests: mean (largest)"
        yield (label, *(f"{sum(side) / len(side):.4f} ({max(side):.4f})" for side in (made, real)), "")


def _both(figure: Mapping[str, Any]) -> tuple[float, float]:
    """The mean over seeds, and the ceiling."""
    return figure["synthetic"][0], figure["real"]


def _groups(found: Mapping[str, Any]) -> Iterator[Row]:
    yield ("group (held out)", *(_words(name) for name in STATISTICS), "label prevalence: synthetic", "held out")
    sizes = {"whole": found["patients"]["held_out"], **found["groups"]}
    for group, size in sizes.items():
        cells = []
        for name in STATISTICS:
            figure = found["figures"][f"r2/{group}/{name}"]
            cells.append(f"{figure['synthetic'][0]:.3f} / {figure['real']:.3f}")
        label = found["figures"][f"label/{group}"]
        yield (f"{group} ({size:,})", *cells, _range(label), f"{found['held_out'][f'label/{group}']:.4f}")


def _likelihood(found: Mapping[str, Any]) -> Iterator[Row]:
    yield ("nats a predicted visit, held out", "")
    yield ("HALO", _range(found["figures"]["nll"], digits=3))
    for name, value in found["nll"].items():
        yield (name, f"{value:.3f}")


def _small(found: Mapping[str, Any]) -> Iterator[Row]:
    yield (
        "training patients",
        "epochs",
        "NLL train / held out",
        "nearest, mean: synthetic / held out",
        "visits copied",
        "records copied",
        "R2 same-visit bigrams: synthetic / training patients",
    )
    for number, run in found["small"].items():
        pairs = [
            f"{run['synthetic'][key]:.4f} / {run['held_out'][key]:.4f}"
            for key in ("nearest/mean", "copied/visits", "copied/records", "r2/whole/same_visit_bigrams")
        ]
        likelihood = f"{run['nll']['train']:.2f} / {run['nll']['held_out']:.2f}"
        yield (f"{int(number):,}", str(run["epochs"]), likelihood, *pairs)


def _table(rows: Iterator[Row]) -> str:
    head, *body = rows
    lines = [head, ("---",) * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _range(figure: Mapping[str, Any], *, digits: int = 4) -> str:
    mean, low, high = figure["synthetic"]
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("/", " ")
