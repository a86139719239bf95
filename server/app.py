"""The ServerApp: read the plan, run the study over the Grid."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fairsynth.config import StudyPlan
from fairsynth.federation.rounds import run_study

from .transport import GridTransport

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study whose plan is at `plan`; write the server's artefacts to `workdir`."""
    plan = StudyPlan.model_validate_json(Path(str(context.run_config["plan"])).read_text(encoding="utf-8"))
    transport = GridTransport(grid, roster=plan.roster, simulated=bool(context.run_config["sites"]))
    root, attempt = Path(str(context.run_config["workdir"])), str(context.run_config["resume"])
    run_study(transport, plan=plan, root=root, resume=bool(attempt), attempt=attempt)
