"""Events in any order -> shards in MEDS order, in memory that does not grow with the number of events.

In:  batches of events whose codes and units are categories, each with the bucket of its patient.
Out: `data/*.parquet`: whole patients, sorted by patient and time; names in the order of patients.
Never: more than a few million events in memory; an order that depends on the order of the tables.

Events are spooled to one file a bucket (a run of consecutive patients), unless they are few. Consecutive buckets then
become a shard, until it has `SHARD_EVENTS` events: a source with ten times the laboratory rows has more shards, not
larger ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from fairsynth.extraction.events import Names

SHARD_EVENTS = 1_500_000
HELD_EVENTS = 4_000_000  # in memory, until they go to files
ROWS_A_GROUP = 1_000_000
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
_ORDER = ["subject_id", "time", "visit_id", "code", "numeric_value", "unit"]

EVENT_ARROW = pa.schema(
    [
        pa.field("subject_id", pa.int64()),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string()),
        pa.field("numeric_value", pa.float32()),
        pa.field("visit_id", pa.int64()),
        pa.field("unit", pa.string()),
    ]
)

SPOOLED = pa.schema(
    [
        pa.field("subject_id", pa.int64()),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.uint32()),
        pa.field("numeric_value", pa.float32()),
        pa.field("visit_id", pa.int64()),
        pa.field("unit", pa.uint32()),
    ]
)


class Spool:
    """Events until they are sorted: in memory while they are few, else in one file a bucket."""

    def __init__(self, folder: Path) -> None:
        self.events: Counter[int] = Counter()
        self._folder = folder
        self._held: list[pl.DataFrame] = []
        self._holds = 0
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        folder.mkdir()

    def add(self, events: pl.DataFrame) -> None:
        """Spool a batch: bucket, subject_id, time, code, numeric_value, visit_id, unit."""
        self._held.append(events.with_columns(pl.col("code", "unit").to_physical()))
        self._holds += events.height
        if self._holds > HELD_EVENTS:
            self._flush()

    def close(self) -> None:
        """Finish the files. Nothing can be added any more."""
        if self._writers and self._held:
            self._flush()
        for frame in self._held:
            self.events.update(dict(frame["bucket"].value_counts().iter_rows()))
        for writer in self._writers.values():
            writer.close()

    def _flush(self) -> None:
        """What is held goes to the files."""
        parts = pl.concat(self._held).partition_by("bucket", include_key=False, as_dict=True)
        self._held, self._holds = [], 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for (bucket,), part in parts.items():
            if bucket not in self._writers:
                self._writers[bucket] = pa.ipc.new_stream(str(self._path(bucket)), SPOOLED, options=options)
            self._writers[bucket].write_table(part.to_arrow().cast(SPOOLED))
            self.events[bucket] += part.height

    def groups(self) -> Iterator[list[int]]:
        """Consecutive buckets, as many as make a shard; one empty group when there are no events."""
        group: list[int] = []
        number = 0
        for bucket in sorted(self.events):
            if group and number + self.events[bucket] > SHARD_EVENTS:
                yield group
                group, number = [], 0
            group.append(bucket)
            number += self.events[bucket]
        yield group

    def read(self, buckets: list[int]) -> pl.DataFrame:
        """The events of these buckets, in no order; their files are removed."""
        if not self._writers:
            wanted = pl.col("bucket").is_in(buckets)
            return pl.concat([_HELD_NOTHING, *(frame.filter(wanted).drop("bucket") for frame in self._held)])
        tables = [SPOOLED.empty_table()]
        for bucket in buckets:
            with pa.ipc.open_stream(str(self._path(bucket))) as reader:
                tables.append(reader.read_all().cast(SPOOLED))
            self._path(bucket).unlink()
        return pl.DataFrame(pa.concat_tables(tables))

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{bucket}.arrows"


_HELD_NOTHING = pl.DataFrame(SPOOLED.empty_table())


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the shards hold."""

    events: int
    codes: pl.Series  # every code that occurs, sorted
    merged: int  # static events and births that several rows of one patient told; one of them is kept
    births: pl.DataFrame  # subject_id, time: of every patient whose birth is known
    patients: int  # that have an event
    deaths_before_birth: int  # patients whose death comes before their birth


def write_shards(spool: Spool, folder: Path, *, names: Names, once: bool) -> Written:
    """Write `folder/<number>.parquet` from what was spooled, at least one file.

    With `once`, a patient has each static event and one birth (the first) only once: where patients are told by their
    visits, every visit tells them again.
    """
    order = _Order.of(names)
    groups = list(spool.groups())
    width = len(str(max(len(groups) - 1, 0)))
    births, events, merged, patients, reversed_lives = [], 0, 0, 0, 0
    for number, buckets in enumerate(groups):
        frame = order.numbered(spool.read(buckets))
        kept = order.once(frame) if once else frame
        kept = kept.sort(_ORDER, nulls_last=False)
        order.write(kept, folder / f"{number:0{width}d}.parquet")
        births.append(order.moments(kept, BIRTH))
        lives = births[-1].join(order.moments(kept, DEATH), on="subject_id", suffix=" of death")
        reversed_lives += lives.filter(pl.col("time of death") < pl.col("time"))["subject_id"].n_unique()
        patients += kept["subject_id"].n_unique()
        events, merged = events + kept.height, merged + frame.height - kept.height
    return Written(
        events=events,
        codes=order.used,
        merged=merged,
        births=pl.concat(births),
        patients=patients,
        deaths_before_birth=reversed_lives,
    )


class _Order:
    """Codes and units, numbered in sorted order, so that events are sorted and stored as numbers."""

    def __init__(self, codes: pl.Series, units: pl.Series) -> None:
        self.codes, self.units = codes.sort(), units.sort()
        self._code_rank, self._unit_rank = _ranks(codes), _ranks(units)
        self._seen = np.zeros(len(codes), dtype=np.bool_)

    @classmethod
    def of(cls, names: Names) -> _Order:
        """The order of all names that have been read."""
        return cls(names.codes.to_series().alias("code"), names.units.to_series().alias("unit"))

    @property
    def used(self) -> pl.Series:
        """Every code that has been written, sorted."""
        return self.codes.filter(pl.Series(self._seen))

    def numbered(self, spooled: pl.DataFrame) -> pl.DataFrame:
        """Spooled events with the sorted numbers of their codes and units."""
        code, unit = self._code_rank.gather(spooled["code"]), self._unit_rank.gather(spooled["unit"])
        return spooled.with_columns(code.alias("code"), unit.alias("unit"))

    def once(self, events: pl.DataFrame) -> pl.DataFrame:
        """Static events and births once a patient."""
        static, born = pl.col("time").is_null(), pl.col("code") == self._number(BIRTH)
        first = events.filter(born).sort("time").unique("subject_id", keep="first", maintain_order=True)
        return pl.concat([events.filter(~static & ~born), events.filter(static).unique(), first])

    def moments(self, events: pl.DataFrame, code: str) -> pl.DataFrame:
        """subject_id, time of the events with this code."""
        return events.filter(pl.col("code") == self._number(code)).select("subject_id", "time")

    def _number(self, code: str) -> int:
        found = self.codes.index_of(code)
        return -1 if found is None else found

    def write(self, events: pl.DataFrame, path: Path) -> None:
        """One shard. Its schema is MEDS's: the codes are a dictionary in the file only."""
        self._seen[events["code"].unique().to_numpy()] = True
        names = {"code": self.codes, "unit": self.units}
        columns = [_arrow(events[field.name], field.type, names.get(field.name)) for field in EVENT_ARROW]
        table = pa.table(columns, names=EVENT_ARROW.names)
        with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False) as writer:
            writer.write_table(table, row_group_size=ROWS_A_GROUP)


def _ranks(names: pl.Series) -> pl.Series:
    """Number at reading -> number in sorted order."""
    return (names.rank("ordinal") - 1).cast(pl.Int32)


def _arrow(column: pl.Series, dtype: pa.DataType, names: pl.Series | None) -> pa.Array:
    """A column as MEDS has it; numbers of `names` as a dictionary."""
    if names is None:
        return column.to_arrow().cast(dtype)
    return pa.DictionaryArray.from_arrays(column.to_arrow(), names.to_arrow().cast(dtype))
