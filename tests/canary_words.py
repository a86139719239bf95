"""Words that tests plant where a patient's values are, and a search for them in what a program says.

The search is for whole words that stand nowhere else: `conftest.py` makes it in the output and the logs of every test,
at the end of the session in all log files too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

PATIENT = 770077000000  # added to the identifiers of patients, of five digits at most
VISIT = 880088000000  # and of visits, of six
DRUG, CODE, NUMBER = "Canarycillin", "ZZ9CANARY", "14.141414"
PLANTED = ("77007700", "77007701", "88008800", "88008810", DRUG, CODE, NUMBER)
WORDS = (
    *PLANTED,
    "ZZ9.CANARY",
    "patient 8812",
    "8812_zz9_canary",
    "CANARY-patient-17",
    "CANARY patient 17",
    "Canary ethnic",
)
LOGS = re.compile(r".*\.(log|jsonl|html|out|err)|.*\.log\.\d+|ledger\..*")
_ROWS = 3  # of a table that get another value: fewer than any study may name
_VALUES = {"DRUG": DRUG, "ICD9_CODE": CODE, "VALUENUM": NUMBER}


def heard(text: str | bytes) -> list[str]:
    """The planted words in a text."""
    said = text if isinstance(text, str) else text.decode("latin-1")
    return [word for word in WORDS if word in said]


def logs(*folders: Path) -> Iterator[Path]:
    """Every file under the folders that is a log, a ledger, a journal or a page."""
    for folder in folders:
        yield from (path for path in folder.rglob("*") if LOGS.fullmatch(path.name) and path.is_file())


def heard_in(paths: Iterable[Path]) -> list[str]:
    """`word in file`, for each that is found."""
    return [f"{word} in {path}" for path in paths for word in heard(path.read_bytes())]


def plant(raw: Path) -> None:
    """In a folder of MIMIC-III's tables: identifiers of every patient and visit, a drug, a code and a number of few."""
    for path in sorted(raw.glob("*.csv")):
        table = pl.read_csv(path, infer_schema=False)
        if "SUBJECT_ID" in table.columns:
            planted(table).write_csv(path)


def planted(table: pl.DataFrame) -> pl.DataFrame:
    """A table of patients with canaries in the place of values."""
    identifiers = {name: add for name, add in (("SUBJECT_ID", PATIENT), ("HADM_ID", VISIT)) if name in table.columns}
    rows = pl.int_range(pl.len()) < _ROWS
    return table.with_columns(
        *((pl.col(name).cast(pl.Int64) + add).cast(pl.String).alias(name) for name, add in identifiers.items()),
        *(
            pl.when(rows).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
            for name, value in _VALUES.items()
            if name in table.columns
        ),
    )
