"""The training figures: likelihood, fairness loss and group rates by round.

In:  `StudyRecord`.   Out: SVG strings.
Never: a curve of a group with fewer members than the minimum cell; a point for a round without counts.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fairsynth.report import svg
from fairsynth.report.study import Round, StudyRecord, counted, soft_counts

ARMS = {"plain": "Plain", "fairsynth": "FairSynth"}  # journal name -> label


def likelihood(study: StudyRecord) -> str:
    """NLL of training and validation patients by round, a panel for each arm."""

    def drawing(figure: Figure) -> None:
        panels = figure.subplots(1, len(ARMS), sharey=True, squeeze=False)[0]
        for panel, (arm, label) in zip(panels, ARMS.items(), strict=True):
            rounds = study.arm(arm)
            for index, (field, split) in enumerate((("nll_train", "training"), ("nll_validation", "validation"))):
                _line(panel, rounds, [getattr(line, field) for line in rounds], index=index, label=split)
            panel.set_title(f"{label} generator")
            _by_round(panel)
        panels[0].set_ylabel("negative log-likelihood (nats a visit)")
        panels[0].legend()

    return svg.draw(drawing, name="nll", alt=_likelihood_alt(study), size=(8.2, 3.0))


def fairness_loss(study: StudyRecord) -> str:
    """L_F by round, both arms in one panel."""

    def drawing(figure: Figure) -> None:
        panel = figure.subplots()
        for index, (arm, label) in enumerate(ARMS.items()):
            rounds = study.arm(arm)
            _line(panel, rounds, [line.loss for line in rounds], index=index, label=f"{label} generator")
        panel.set_ylabel("fairness loss L_F (no unit)")
        panel.set_ylim(bottom=0)
        _by_round(panel)
        panel.legend()

    return svg.draw(drawing, name="loss", alt=_loss_alt(study), size=(8.2, 2.8))


def group_rates(study: StudyRecord) -> str:
    """S_g / N_g of each group by round, a panel for each arm that was counted; too small groups are left out."""
    shown, hidden = shown_groups(study)
    arms = {arm: label for arm, label in ARMS.items() if counted(study.arm(arm))} or ARMS

    def drawing(figure: Figure) -> None:
        panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
        for panel, (arm, label) in zip(panels, arms.items(), strict=True):
            rounds = counted(study.arm(arm))
            counts = soft_counts(rounds)  # (R, G, 4)
            for index in shown:
                rate = counts[:, index, 2] / counts[:, index, 0] if len(rounds) else np.zeros(0)
                _line(panel, rounds, list(rate), index=index, label=study.plan.groups.names[index])
            panel.set_title(f"{label} generator")
            _by_round(panel)
        unit = "codes" if study.plan.objective.target == "codes" else "labels"
        panels[0].set_ylabel(f"expected {unit} a patient, S_g / N_g")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", title="group")

    names = ", ".join(study.plan.groups.names[index] for index in shown)
    which = " and ".join(arms.values()) + (" generators" if len(arms) > 1 else " generator")
    alt = f"Expected predictions a patient by round for the groups {names or '(none)'}: {which}."
    if hidden:
        alt += f" Left out, fewer than {study.plan.audit.minimum_cell} training patients: {', '.join(hidden)}."
    return svg.draw(drawing, name="rates", alt=alt, size=(8.2, 3.2))


def shown_groups(study: StudyRecord) -> tuple[list[int], list[str]]:
    """Indices of groups with enough training patients in every counted round, and the names of the others."""
    rounds = counted(study.rounds)
    counts = soft_counts(rounds) if rounds else np.zeros((1, len(study.plan.groups.names), 4))
    enough = counts[:, :, 0].min(axis=0) >= study.plan.audit.minimum_cell
    hidden = [str(name) for name, keep in zip(study.plan.groups.names, enough, strict=True) if not keep]
    return [int(index) for index in np.flatnonzero(enough)], hidden


def _line(panel: Plot, rounds: tuple[Round, ...], values: list[float | None], *, index: int, label: str) -> None:
    heights = [np.nan if value is None else value for value in values]
    panel.plot(
        [line.round for line in rounds],
        heights,
        color=svg.colour(index),
        linestyle=svg.dash(index),
        marker=svg.marker(index),
        label=label,
    )


def _by_round(panel: Plot) -> None:
    panel.set_xlabel("round (0: base rates alone)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _ends(rounds: tuple[Round, ...], field: str) -> str:
    known = [value for line in rounds if (value := getattr(line, field)) is not None]
    return f"{known[0]:.3g} to {known[-1]:.3g}" if known else "not recorded"


def _likelihood_alt(study: StudyRecord) -> str:
    parts = [
        f"{label} generator: training {_ends(study.arm(arm), 'nll_train')},"
        f" validation {_ends(study.arm(arm), 'nll_validation')}"
        for arm, label in ARMS.items()
    ]
    return f"Negative log-likelihood in nats a visit from the first to the last round. {'; '.join(parts)}."


def _loss_alt(study: StudyRecord) -> str:
    parts = [f"{label} generator {_ends(study.arm(arm), 'loss')}" for arm, label in ARMS.items()]
    return f"Fairness loss from the first to the last round: {'; '.join(parts)}."
