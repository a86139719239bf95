"""A site's process that is killed between the ledger and the release: run with a folder and where to die."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from fairsynth.governance.budget import Budget, Gaussian, Limit
from fairsynth.governance.drawn import Drawn
from fairsynth.governance.noise import discrete_gaussian


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def release(root, *, death):
    """Charge, draw, release; die after the charge or after the draw."""
    budget = Budget(root, limit=Limit(epsilon=1.0, delta=1e-5))
    budget.spend("round 1 counts", Gaussian(ratio=10.0), plan_sha256="p" * 64)
    if death == "after the charge":
        die()
    values = Drawn(root).noised(
        "round 1 counts", np.array([3, 0, 7_000]), draw=lambda values: discrete_gaussian(values, sigma=10.0)
    )
    if death == "after the draw":
        die()
    (root / "released").write_text(" ".join(map(str, values)))


if __name__ == "__main__":
    release(Path(sys.argv[1]), death=sys.argv[2])
