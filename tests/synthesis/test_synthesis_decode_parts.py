"""Choices follow the decoder's weights and ranges; the calendar keeps the sampled intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairsynth.errors import ArtefactError
from fairsynth.seeds import Streams, numpy_stream
from fairsynth.synthesis.choices import Decoder, inside
from fairsynth.synthesis.tables import guard
from fairsynth.synthesis.timeline import FIRST_YEAR, Intervals, timeline
from fairsynth.visits.decoder import DECODER_SCHEMA

NAMES = ("A", "B", "C", "D")


@pytest.fixture
def decoder(tmp_path: Path) -> Decoder:
    """A: one code; B: three codes 1:2:5; C: none; D: a range."""
    rows = [
        ("A", "a", None, None, None, 3.0),
        ("B", "b1", None, None, None, 1.0),
        ("B", "b2", None, None, None, 2.0),
        ("B", "b5", None, None, None, 5.0),
        ("D", "d", "mg/dL", 10.0, 20.0, 7.0),
        ("X", "not in the vocabulary", None, None, None, 100.0),
    ]
    pl.DataFrame(rows, schema=DECODER_SCHEMA, orient="row").write_parquet(tmp_path / "decoder.parquet")
    return Decoder.read(tmp_path / "decoder.parquet", names=NAMES)


def test_codes_are_drawn_in_proportion_to_their_weights(decoder: Decoder) -> None:
    number = 40_000
    drawn = decoder.draw(np.full(number, 1), streams=Streams(1, "test"), purpose="codes").source
    shares = {code: (drawn == code).sum() / number for code in ("b1", "b2", "b5")}
    assert shares == pytest.approx({"b1": 1 / 8, "b2": 2 / 8, "b5": 5 / 8}, abs=0.012)  # 5 standard errors


def test_a_token_never_gets_the_code_of_another(decoder: Decoder) -> None:
    tokens = numpy_stream(2, "test").integers(0, 4, size=5_000)
    sources = decoder.draw(tokens, streams=Streams(3, "test"), purpose="codes").source.to_list()
    for token, source in zip(tokens.tolist(), sources, strict=True):
        assert source is None if token == 2 else str(source)[0] == NAMES[token].lower()


def test_values_lie_inside_their_range_and_other_tokens_have_none(decoder: Decoder) -> None:
    choices = decoder.draw(np.array([3] * 1000 + [0]), streams=Streams(4, "test"), purpose="codes")
    assert choices.value[-1] is None
    values = choices.value.drop_nulls()
    assert len(values) == 1000
    assert values.min() > 10
    assert values.max() < 20
    assert values.mean() == pytest.approx(15, abs=0.5)
    assert choices.unit[0] == "mg/dL"


def test_a_missing_decoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no decoder"):
        Decoder.read(tmp_path / "decoder.parquet", names=NAMES)


@given(
    st.floats(-1e4, 1e4),
    st.floats(1e-3, 1e5),
    st.integers(0, 2**32),
)
def test_a_drawn_value_survives_float32_inside_its_bin(low: float, width: float, seed: int) -> None:
    high = low + width
    value = inside(np.array([low]), np.array([high]), rng=numpy_stream(seed, "inside"))
    assert low < value[0] < high
    if abs(low) < 1e3 * width:  # a bin wide enough for float32, which keeps 7 digits
        assert low < float(np.float32(value[0])) < high


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 2**32))
def test_the_calendar_keeps_gaps_lengths_and_ages(counts: list[int], seed: int) -> None:
    rng = numpy_stream(seed, "intervals")
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    visits, last = int(offsets[-1]), offsets[1:] - 1
    gap, length = rng.uniform(0, 400, visits), rng.uniform(0.1, 40, visits)
    age = rng.uniform(5 * 365.25, 100 * 365.25, len(counts))  # old enough for four visits
    times = timeline(
        Intervals(gap=gap.copy(), length=length, age=age, aged_at=last),
        patient_offsets=offsets,
        streams=Streams(seed, "decode"),
    )
    day = np.timedelta64(86_400, "s")
    assert np.allclose((times.end - times.start) / day, length, atol=2e-5)
    within = np.setdiff1d(np.arange(visits), offsets[:-1])
    assert np.allclose((times.start[within] - times.end[within - 1]) / day, gap[within], atol=2e-5)
    lived = (times.start[last] - times.birth) / day
    assert ((lived >= age - 2e-5) & (lived < age + 1 + 2e-5)).all()  # born at midnight of the same day
    assert (times.birth == times.birth.astype("datetime64[D]")).all()
    assert times.start.min() >= np.datetime64(f"{FIRST_YEAR}-01-01")


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 2**32))
def test_nobody_is_admitted_before_birth_however_long_the_gaps(counts: list[int], seed: int) -> None:
    rng = numpy_stream(seed, "intervals")
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    visits, last = int(offsets[-1]), offsets[1:] - 1
    gap, length = rng.uniform(0, 4000, visits), rng.uniform(0.1, 400, visits)
    age = rng.uniform(0, 3650, len(counts))
    times = timeline(
        Intervals(gap=gap, length=length, age=age, aged_at=last),
        patient_offsets=offsets,
        streams=Streams(seed, "decode"),
    )
    day = np.timedelta64(86_400, "s")
    assert (times.start[offsets[:-1]] >= times.birth).all()
    assert (times.start < times.end).all()
    later = np.setdiff1d(np.arange(visits), offsets[:-1])
    assert (times.start[later] >= times.end[later - 1]).all()
    lived = (times.start[last] - times.birth) / day
    assert ((lived >= age - 2e-5) & (lived < age + 1 + 2e-5)).all()
    assert times.contradictory <= len(counts)


def test_where_there_is_no_calendar_visits_follow_each_other_as_extraction_lays_them() -> None:
    unknown = np.full(4, np.nan)
    days = Intervals(gap=unknown, length=np.ones(4), age=np.array([9000.0]), aged_at=np.array([3]))
    offsets = np.array([0, 4], dtype=np.int64)
    times = timeline(days, patient_offsets=offsets, streams=Streams(1, "decode"), artificial=True)
    gaps = (times.start[1:] - times.end[:-1]) / np.timedelta64(1, "D")
    assert ((gaps >= 1) & (gaps < 2)).all()


def test_unknown_intervals_are_drawn_and_move_no_known_one() -> None:
    offsets = np.array([0, 3], dtype=np.int64)
    known = Intervals(
        gap=np.array([0.0, 10, 20]), length=np.array([1.0, 2, 3]), age=np.array([9000.0]), aged_at=np.array([2])
    )
    holes = Intervals(
        gap=np.array([0.0, np.nan, 20]),
        length=np.array([1.0, 2, np.nan]),
        age=np.array([9000.0]),
        aged_at=np.array([2]),
    )
    full = timeline(known, patient_offsets=offsets, streams=Streams(1, "decode"))
    partly = timeline(holes, patient_offsets=offsets, streams=Streams(1, "decode"))
    assert partly.start[0] == full.start[0]
    day = np.timedelta64(1, "D")
    assert 30 <= (partly.start[1] - partly.end[0]) / day <= 365
    assert 3 <= (partly.end[2] - partly.start[2]) / day <= 10
    assert np.isclose((partly.start[2] - partly.end[1]) / day, 20, atol=2e-5)


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", " =1"),
        ("-3.5", "-3.5"),
        ("+1e5", "+1e5"),
        ("Aspirin 5% -", "Aspirin 5% -"),
        ("-polys", "-polys"),
        ("+/-", "+/-"),
        ("-cmd(1)", "'-cmd(1)"),
        ("-A1", "'-A1"),
        ("two\nlines", "two lines"),
        ("", ""),
        (None, None),
    ],
)
def test_formula_cells_become_text(cell: str | None, safe: str | None) -> None:
    frame = pl.DataFrame({"cell": [cell]}, schema={"cell": pl.String})
    assert frame.select(guard(pl.col("cell")).alias("cell"))["cell"].item() == safe
