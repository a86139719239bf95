"""What the names of approaches stand for: the method, what it has to beat, what it cannot beat, and its controls.

In:  names of approaches, as trials write them.   Out: roles, families, titles.
Never: a list of all names. An approach without a role is counted and printed like any other.
"""

from __future__ import annotations

import re

METHOD = "fairsynth"
REAL_ONLY = "real_only"
ORACLE = "oracle"  # fresh real patients to the method's own quotas
LOCAL = "fairsynth_local"
POOLED = "fairsynth_pooled"

# What the method has to beat. Controls (copies to the same plan, permuted groups, fresh patients) are in no family.
FAMILIES = {
    "data_level": (REAL_ONLY, "plain_synthetic", "double_prioritised", "cell_balanced", "reweighing"),
    "model_level": (
        "exponentiated_gradient",
        "threshold_optimiser",
        "fedavg",
        "fairfed",
        "fedavg_site_thresholds",
        "teacher_optimised",
    ),
}

TITLES = {
    REAL_ONLY: "real only",
    "plain_synthetic": "+ plain synthetic",
    "double_prioritised": "+ double-prioritised copies",
    "cell_balanced": "+ cell-balanced copies",
    "reweighing": "reweighing",
    "same_plan_copies": "+ copies, FairSynth's plan",
    "same_plan_prefix": "+ synthetic by prefix, FairSynth's plan",
    "teacher": "FairSynth's teacher itself",
    "teacher_optimised": "FairSynth's teacher, threshold optimiser",
    "exponentiated_gradient": "exponentiated gradient",
    "threshold_optimiser": "threshold optimiser",
    "fedavg": "FedAvg",
    "fairfed": "FairFed",
    "fedavg_site_thresholds": "FedAvg, thresholds by site",
    METHOD: "+ FairSynth",
    LOCAL: "+ FairSynth, each site alone",
    POOLED: "+ FairSynth, pooled",
    "permuted_groups": "+ FairSynth, groups permuted",
    "fixed_cut": "FairSynth, every group cut alike",
    "same_cut": "FairSynth, groups' cuts not planned",
    "site_cuts": "FairSynth, groups' cuts planned by each site",
    "common_teacher": "FairSynth, the common model teaches alone",
    "own_teacher": "FairSynth, each site's forest teaches alone",
    "local_teacher": "FairSynth, each site's own teacher",
    "not_at_home": "FairSynth, the common generator as it is",
    "more_candidates": "FairSynth, four times the candidates",
    "equal_cells": "FairSynth, equal-cells plan",
    "steered_lambda": "FairSynth, generator steered by L_F",
    "steered_zero": "FairSynth, as many rounds unsteered",
    "prefix": "synthetic by prefix, no teacher",
    "prefix_ranked": "by prefix, ranked by the teacher",
    "newton_ranked": "by prefix, ranked by their effect",
    "quota_feedback": "by prefix, quotas from validation counts",
    "gradient_frozen": "by prefix, generator steered by L_DF",
    "training_effect": "by prefix, steered by their effect on L_DF",
    "fresh_same_size": "+ fresh real, no plan",
    ORACLE: "+ fresh real, FairSynth's plan (oracle)",
}

_WEIGHT = re.compile(r"(?:.*_)?lambda[_=](\d+(?:\.\d+)?)")


def title(approach: str) -> str:
    """The name to print; of a name without a title, its own words."""
    weight = fairness_weight(approach)
    return TITLES.get(approach, approach.replace("_", " ") if weight is None else f"+ FairSynth, lambda = {weight:g}")


def fairness_weight(approach: str) -> float | None:
    """The lambda of `lambda=1.2` or `fairsynth_lambda_1.2`; None of any other name."""
    found = _WEIGHT.fullmatch(approach)
    return None if found is None else float(found[1])


def ordered(approaches: tuple[str, ...]) -> tuple[str, ...]:
    """`approaches` as tables show them: those with a title in its order, then lambdas upwards, then the others."""
    known = list(TITLES)

    def place(name: str) -> tuple[int, float, str]:
        if name in TITLES:
            return 0, known.index(name), name
        weight = fairness_weight(name)
        return (2, 0.0, name) if weight is None else (1, weight, name)

    return tuple(sorted(approaches, key=place))
