"""A finished run as a data frame, for notebooks and papers.

In:  the folder of a run.   Out: one row per scope, approach, predictor, threshold and metric.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fairsynth.audit.summary import Summary
from fairsynth.experiments.study import Run
from fairsynth.report.study import read_finished

COLUMNS = ["scope", "approach", "predictor", "threshold", "metric", "mean", "sd", "low", "high", "seeds"]


def results(run: Path) -> pd.DataFrame:
    """The metrics of the run at `run` in long form: mean and sd over seeds, and the interval; NaN where undefined.

    Raises ConfigError or ArtefactError when there is no finished run.
    """
    result = Run(root=run)
    _ = result.plan
    return frame(read_finished(result.server).summary)


def frame(summary: Summary) -> pd.DataFrame:
    """The metrics of `summary` in long form, see `results`."""
    rows = [
        (scope.scope, one.approach, one.predictor, one.threshold, metric, *value.model_dump().values())
        for scope in summary.scopes
        for one in scope.results
        for metric, value in one.metrics.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)
