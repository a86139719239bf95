"""The commands of governance are tested on the stories of `tests/governance`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "governance"))
