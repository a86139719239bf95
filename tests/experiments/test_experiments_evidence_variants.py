"""The table across settings of the ablation and of Table 2, on numbers written by hand."""

import math
import sys

import polars as pl
import pytest
from scipy import stats

from benchmarks import evidence_variants as variants

KEY = ("worst_tpr", "half")


def numbers(values):
    """A frame of (setting, predictor, approach) -> a value for each seed."""
    return pl.DataFrame(
        [
            {
                "setting": setting,
                "real": 2500,
                "synthetic": 2500,
                "seed": seed,
                "scope": "all sites",
                "approach": approach,
                "predictor": predictor,
                "threshold": KEY[1],
                "metric": KEY[0],
                "group": None,
                "value": value,
            }
            for (setting, predictor, approach), each in values.items()
            for seed, value in enumerate(each, start=1)
        ],
        schema_overrides={"group": pl.String},
    )


TWO = {
    ("a", "transformer", "fairsynth"): [0.5, 0.4, 0.6],
    ("a", "transformer", "prefix"): [0.4, 0.4, 0.3],
    ("b", "transformer", "fairsynth"): [0.3, 0.3, 0.3],
    ("b", "transformer", "prefix"): [0.5, 0.1, 0.4],
}


def test_the_difference_is_of_each_seed_over_all_pairs_with_students_interval():
    text = variants.cell(numbers(TWO), KEY, "prefix", "fairsynth")
    each = [(-0.1 + 0.2) / 2, (0.0 - 0.2) / 2, (-0.3 + 0.1) / 2]
    mean = sum(each) / 3
    low, high = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem(each))
    assert text == f"0.350 ({mean:+.3f} [{low:.3f}, {high:.3f}], 1)"  # higher in b, by 0.03 on average
    assert variants.cell(numbers(TWO), KEY, "fairsynth", "fairsynth") == "0.400"


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_pair_that_is_undefined_on_a_seed_is_left_out_of_both_means(missing):
    holed = TWO | {("a", "transformer", "prefix"): [0.4, missing, 0.3]}
    assert variants.cell(numbers(holed), KEY, "prefix", "fairsynth").startswith("0.333 (+0.033 [")
    assert variants.cell(numbers(holed), KEY, "prefix", "fairsynth").endswith(", 1 of 1)")


def test_a_variant_that_is_nowhere_defined_is_a_dash():
    nowhere = TWO | {("a", "transformer", "prefix"): [math.nan] * 3, ("b", "transformer", "prefix"): [math.nan] * 3}
    assert variants.cell(numbers(nowhere), KEY, "prefix", "fairsynth") == "-"


def test_only_the_asked_row_all_sites_and_seeds_of_every_setting_count():
    frame = numbers(TWO | {("b", "transformer", "fairsynth"): [0.3, 0.3], ("b", "transformer", "prefix"): [0.5, 0.1]})
    stray = frame.with_columns(value=pl.lit(9.0))
    mixed = pl.concat(
        [
            frame,
            stray.with_columns(real=pl.lit(1000, pl.Int64)),
            stray.with_columns(scope=pl.lit("boston")),
            stray.with_columns(group=pl.lit("white")),
        ]
    )
    kept = variants.overall(mixed, row=(2500, 2500))
    assert sorted(kept["seed"].unique()) == [1, 2]  # b has no third
    assert variants.cell(kept, KEY, "fairsynth", "fairsynth") == "0.375"


def test_the_command_prints_the_one_compared_with_first_and_a_line_for_each_other(tmp_path, monkeypatch, capsys):
    for setting in "ab":
        numbers(TWO).filter(pl.col("setting") == setting).write_parquet(tmp_path / f"ablation-{setting}.parquet")
    monkeypatch.setattr(sys, "argv", ["evidence_variants", str(tmp_path)])
    variants.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 pairs of setting and predictor, 3 seeds"
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| + FairSynth", "| synthetic by prefix, no teacher"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ["--table", "table2"],
            "no table2-.*parquet",
        ),  # what another table left in the same folder is not taken for it
        (["--real", "5000"], "no seed of 5000 . 2500 patients that every setting"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, monkeypatch, asked, said):
    numbers(TWO).write_parquet(tmp_path / "ablation-a.parquet")
    monkeypatch.setattr(sys, "argv", ["evidence_variants", str(tmp_path), *asked])
    with pytest.raises(SystemExit, match=said):
        variants.main()
