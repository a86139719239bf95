"""What must hold of every set of events: rows and patients are accounted for."""

import json
from pathlib import Path

import polars as pl


def flow_of(out: Path) -> dict[str, int]:
    """Step -> count."""
    return json.loads((out / "flow.json").read_text())


def assert_nobody_is_lost(out: Path) -> None:
    """Every row has one fate, and every patient of the tables is among the events or counted as having none."""
    flow = flow_of(out)
    for table in {step.split(": ")[0] for step in flow if step.endswith(": rows")}:
        fates = [number for step, number in flow.items() if step.startswith(f"{table}: rows left out, ")]
        assert flow[f"{table}: rows"] == flow[f"{table}: rows kept"] + sum(fates)
        assert min([flow[f"{table}: rows kept"], *fates]) >= 0
        assert flow[f"{table}: events"] >= flow[f"{table}: rows kept"]
    events = pl.read_parquet(out / "data")
    assert flow["patients"] == events["subject_id"].n_unique() + flow.get("patients without an event", 0)
    assert flow["events"] == events.height
