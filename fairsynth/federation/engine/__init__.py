"""Run the Flower app at the repository root on this machine, and leave nothing running.

In:  the app folder, a plan, the sites' folders.   Out: the server's folder, filled by `federation.rounds`.
Never: flwr in this process (its programs are started), a port or FLWR_HOME that another run uses.
"""

from fairsynth.federation.engine.app import find_app
from fairsynth.federation.engine.deployment import run_deployment
from fairsynth.federation.engine.simulation import run_simulation
from fairsynth.federation.engine.study import Site

__all__ = ["Site", "find_app", "run_deployment", "run_simulation"]
