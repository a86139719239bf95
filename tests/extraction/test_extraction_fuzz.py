"""Random damage to the tiny tables: an ExtractionError without a patient's value, or events with every row accounted
for; nothing else. `make fuzz FUZZ=2000` tries so many damaged folders."""

import functools
import gzip
import io
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from extraction_accounts import assert_nobody_is_lost
from extraction_offsets import OFFSET_RULES, OFFSET_TABLES, SITE
from extraction_tables import TABLES

from fairsynth.errors import ExtractionError
from fairsynth.extraction import engine, extract, shards, tables
from fairsynth.extraction.rules import read_source

pytestmark = pytest.mark.slow

_read_once = functools.cache(read_source)
SEEDS = range(int(os.environ.get("FUZZ_FROM", "0")), int(os.environ.get("FUZZ", "300")))
BYTES = b'\0\x1a\n\r\t ",;|.-+:/\\eE0179aAzZ_\x80\xe4\xff'
WORDS = (
    *(
        b'""',
        b'"\n"',
        b",,",
        b"\r\n",
        b"\n\n",
        b"\xef\xbb\xbf",
        b"9223372036854775808",
        b"1e308",
        b"-1",
        b"nan",
        b"9999",
    ),
    *(b"2150-02-30", b"0000-00-00 00:00:00", b"24:00:00", b"101", b"7001", b"NULL", "汉".encode(), b"x" * 70_000),
)


def overwrite(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(BYTES)


def insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice([bytes([rng.choice(BYTES)]), rng.choice(WORDS)])


def cut(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice([1, 1, 2, 5, 20, 10**6])]


def repeat(data: bytearray, rng: random.Random) -> None:
    at, width = rng.randrange(len(data) + 1), rng.choice([1, 8, 60, 10**6])
    data[at:at] = data[at : at + width]


def swap_lines(data: bytearray, rng: random.Random) -> None:
    lines = bytes(data).split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    data[:] = b"\n".join(lines)


def replace_cell(data: bytearray, rng: random.Random) -> None:
    lines = bytes(data).split(b"\n")
    at = rng.randrange(len(lines))
    delimiter = b";" if b";" in lines[at] else b","
    cells = lines[at].split(delimiter)
    cells[rng.randrange(len(cells))] = rng.choice([b"", b"0", b"101", b"7003", b"103", *WORDS])
    lines[at] = delimiter.join(cells)
    data[:] = b"\n".join(lines)


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(overwrite, insert, cut, repeat, swap_lines),
    *(replace_cell, replace_cell),
)


@dataclass(frozen=True)
class Source:
    """Tables, how their text is written, and where their rules are."""

    tables: dict[str, str]
    delimiter: str
    encoding: str
    config: Path
    secrets: tuple[str, ...]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> tuple[Source, Source]:
    """MIMIC-III's tiny tables, and those with offsets."""
    config = tmp_path_factory.mktemp("config")
    (config / "site.yaml").write_text(SITE, encoding="utf-8")
    (config / "rules.yaml").write_text(OFFSET_RULES, encoding="utf-8")
    mimic3 = Path(__file__).resolve().parents[2] / "site_configs" / "mimic3"
    secrets = ("7001", "7002", "7003", "7004", "2150-01", "2160-0", "Heparin", "41071", "EMERGENCY", "50912")
    return (
        Source(TABLES, ",", "utf-8", mimic3, secrets),
        Source(OFFSET_TABLES, ";", "gb18030", config, ("s-1", "s-2", "s-3", "1440", "90.5", "血糖")),
    )


def stored(table: str, source: Source, rng: random.Random) -> tuple[str, bytes]:
    """A table as one of the kinds of file: its name and content."""
    kind = rng.choice(["csv", "csv", "csv", "csv.gz", "parquet"])
    text = source.tables[table]
    if kind == "parquet":
        typed, buffer = rng.random() < 0.5, io.BytesIO()
        frame = pl.read_csv(io.StringIO(text), separator=source.delimiter, infer_schema=typed)
        frame.write_parquet(buffer, compression=rng.choice(["zstd", "snappy", "uncompressed"]))
        return f"{table}.parquet", buffer.getvalue()
    content = text.encode(source.encoding)
    return f"{table}.{kind}", gzip.compress(content, mtime=0) if kind == "csv.gz" else content


def damaged(data: Path, source: Source, rng: random.Random) -> str:
    """Write the tables, one or two of them damaged: which."""
    data.mkdir()
    hurt = set(rng.sample(sorted(source.tables), k=rng.choice([1, 1, 2])))
    for table, text in source.tables.items():
        name, content = (f"{table}.csv", text.encode(source.encoding))
        if table in hurt:
            name, content = stored(table, source, rng)
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 4, 16]) if table in hurt else 0):
            rng.choice(DAMAGES)(changed, rng)
        (data / name).write_bytes(bytes(changed))
    return " ".join(sorted(hurt))


def lenient(config: Path):
    """The rules, and a site that tolerates any share of unreadable and unknown rows."""
    site, rules = _read_once(config)
    return site.model_copy(update={"maximum_unreadable_share": 1.0, "maximum_dropped_share": 1.0}), rules


@pytest.mark.parametrize("seed", SEEDS)
def test_random_damage_ends_in_an_error_or_in_events_that_account_for_every_row(seed, sources, tmp_path, monkeypatch):
    rng = random.Random(seed)
    source = sources[rng.random() < 0.3]
    monkeypatch.setattr(engine, "read_source", rng.choice([_read_once, lenient]))
    monkeypatch.setattr(tables, "BLOCK_BYTES", rng.choice([tables.BLOCK_BYTES, 250]))
    monkeypatch.setattr(shards, "HELD_EVENTS", rng.choice([shards.HELD_EVENTS, 0, 5]))
    hurt = damaged(tmp_path / "data", source, rng)
    try:
        out = extract(tmp_path / "data", config=source.config, root=tmp_path / "site")
    except ExtractionError as error:
        text = str(error).replace(str(tmp_path), "")
        assert [secret for secret in source.secrets if secret in text] == [], hurt
        assert list((tmp_path / "site").iterdir()) == [], hurt
    else:
        assert_nobody_is_lost(out)
