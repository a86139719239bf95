"""What the federation costs: python -m benchmarks.federation [--json] [--only overhead|real|in_process|large]

overhead     seconds of a round between real processes (SuperLink, SuperNodes, TLS, masked sums), over those of the same
             training in two processes that tell nobody anything
real         real processes of many sites on one machine: seconds and memory of a round
in_process   as many sites as a roster may have: the server's own seconds and memory of a round
large        the same with a generator of 400 MB

`--json` has the keys `overhead`, `sites_real`, `sites_in_process` and `server_rss_growth`. All takes 40 minutes on
2 cores and 20 GB of memory; `--quick` is smaller, `--sites` and `--seconds` change it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.federation_deployed import overhead, real_sites
from benchmarks.federation_server import in_process
from benchmarks.timing import apart

SMALL, LARGE = (128, 2), (1024, 8)  # embedding and layers: 1.6 MB and 400 MB of weights
FULL = {"seconds": 60.0, "sites": (2, 10, 25, 50), "many": (10, 100, 1000), "large": (2, 4, 8)}
QUICK = {"seconds": 5.0, "sites": (2, 3), "many": (5, 50), "large": (2, 3)}


def measured_overhead(scale: dict[str, Any], root: Path) -> dict[str, Any]:
    """Rounds with and without federation."""
    found = overhead(root, seconds=scale["seconds"])
    return {"overhead": found["federated"] / found["alone"] - 1, "rounds": found}


def measured_real(scale: dict[str, Any], root: Path) -> dict[str, Any]:
    """A curve over real sites."""
    rows = {number: real_sites(root / str(number), number) for number in scale["sites"]}
    return {"sites_real": max(rows), "real": rows}


def measured_many(scale: dict[str, Any], root: Path) -> dict[str, Any]:
    """A curve over sites in one process; the growth is of the server's peak, from the fewest to the most."""
    rows = {number: apart(in_process, root / f"many-{number}", number, *SMALL) for number in scale["many"]}
    growth = rows[max(rows)]["peak_mib"] / rows[min(rows)]["peak_mib"]
    return {"sites_in_process": max(rows), "server_rss_growth": growth, "in_process": rows}


def measured_large(scale: dict[str, Any], root: Path) -> dict[str, Any]:
    """The same with a large model, whose messages have 16 bits a number."""
    rows = {number: apart(in_process, root / f"large-{number}", number, *LARGE) for number in scale["large"]}
    return {"server_rss_growth_large": rows[max(rows)]["peak_mib"] / rows[min(rows)]["peak_mib"], "large": rows}


PARTS: dict[str, Callable[[dict[str, Any], Path], dict[str, Any]]] = {
    "overhead": measured_overhead,
    "real": measured_real,
    "in_process": measured_many,
    "large": measured_large,
}


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="few sites, short rounds")
    parser.add_argument("--only", choices=PARTS, action="append", help="some parts alone")
    parser.add_argument("--sites", type=int, nargs="+", help="numbers of sites of real processes")
    parser.add_argument("--seconds", type=float, help="of local work a round, of the overhead")
    arguments = parser.parse_args()
    scale = dict(QUICK if arguments.quick else FULL)
    scale |= {"sites": arguments.sites} if arguments.sites else {}
    scale |= {"seconds": arguments.seconds} if arguments.seconds else {}
    found: dict[str, Any] = {}
    for name in arguments.only or PARTS:
        with tempfile.TemporaryDirectory(prefix="fairsynth-") as folder:
            found |= PARTS[name](scale, Path(folder))
    print(json.dumps(found) if arguments.json else table(found))


def table(found: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{name:24} {value:.3f}" for name, value in found.items() if isinstance(value, int | float)]
    for part in ("rounds", "real", "in_process", "large"):
        rows = found.get(part, {})
        for number, row in rows.items() if part != "rounds" else [("", rows)] if rows else []:
            lines.append(f"{part:12} {number!s:>6} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
