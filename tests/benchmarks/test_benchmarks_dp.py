import json
from pathlib import Path

import pytest

from benchmarks.dp import EPSILONS, attacks, counts, tables

ROOT = Path(__file__).resolve().parents[2]
STORED = json.loads((ROOT / "docs" / "results" / "dp.json").read_text())
SPECIFIED = {  # p50 and p95 of |DI - 1| by cohort and sigma, from continuous noise
    ("MIMIC-like", "2"): (0.005, 0.015),
    ("MIMIC-like", "5"): (0.013, 0.038),
    ("MIMIC-like", "local 5"): (0.029, 0.084),
    ("PIC-like", "2"): (0.19, 0.54),
    ("PIC-like", "5"): (0.47, 1.5),
    ("pilot", "2"): (0.38, 1.2),
    ("pilot", "5"): (0.99, 4.5),
}


@pytest.mark.parametrize("place", range(4))
def test_the_page_shows_the_stored_figures(place):
    assert tables(STORED)[place] in (ROOT / "docs" / "differential_privacy.md").read_text()


def test_noise_moves_disparate_impact_as_the_specification_tells():
    found = {(row["cohort"], row["sigma"]): (row["p50"], row["p95"]) for row in counts()}
    for key, (middle, high) in SPECIFIED.items():
        assert found[key][0] == pytest.approx(middle, rel=0.15, abs=1e-3)
        assert found[key][1] == pytest.approx(high, rel=0.25, abs=1e-3)


def test_small_groups_are_dropped_and_large_ones_are_not():
    dropped = {(row["cohort"], row["sigma"]): row["dropped"] for row in counts()}
    assert dropped["MIMIC-like", "local 5"] == 0
    assert dropped["pilot", "5"] > 0.99


def test_the_attack_stays_below_the_claim_and_exceeds_it_where_noise_is_too_small():
    first, second, control = attacks()
    assert first["at_least"] < first["claimed"] and second["at_least"] < second["claimed"]
    assert control["at_least"] > control["claimed"]


def test_every_stored_epsilon_is_within_what_it_is_named_after():
    for row in STORED["rows"]:
        if row["epsilon"] is not None:
            named = float(row["level"].removeprefix("epsilon "))
            assert named in EPSILONS
            assert 0.98 * named < row["epsilon"] <= named
