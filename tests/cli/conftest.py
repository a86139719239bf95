"""Commands are tested on the stories of `tests/governance` and the toys of `tests/federation`."""

import sys
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[1] / peer) for peer in ("governance", "federation"))
