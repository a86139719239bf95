"""Run the Flower app at the repository root on this machine, and leave nothing running.

In:  the app folder, a plan, the sites' folders.   Out: the server's folder, filled by `federation.rounds`.
Never: flwr in this process (its programs are started), a port or FLWR_HOME that another run uses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairsynth.federation.engine.app import find_app
    from fairsynth.federation.engine.deployment import run_deployment
    from fairsynth.federation.engine.simulation import run_simulation
    from fairsynth.federation.engine.study import Site

__all__ = ["Site", "find_app", "run_deployment", "run_simulation"]
_HOMES = {"Site": "study", "find_app": "app", "run_deployment": "deployment", "run_simulation": "simulation"}


def __getattr__(name: str) -> Any:
    """What is named above, when it is first asked for: `app` and `processes` are of use without torch."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
