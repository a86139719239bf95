"""What hospitals send instead of clean tables: each case is the files that differ from the tiny tables of
extraction_tables.py, and what must come of them.

REFUSED: an error, with these fragments.   SAME: the events of the untouched tables, byte for byte.
COUNTED: events, with this difference in the flow (step -> count, None: no such step).
"""

import gzip
import io
from collections.abc import Callable, Mapping

import polars as pl
from extraction_tables import TABLES

Content = str | bytes | None  # None: the file is not there
Files = Mapping[str, Content]

LABS, PATIENTS, ADMISSIONS = TABLES["LABEVENTS"], TABLES["PATIENTS"], TABLES["ADMISSIONS"]
DRUGS = """\
SUBJECT_ID,HADM_ID,STARTDATE,DRUG,ROUTE
101,7001,2150-01-01 00:00:00,Heparin,IV-PUSH
101,7001,2150-01-02 00:00:00,Aspirin,BY-MOUTH
102,7003,2160-02-01 05:00:00,Insulin,UNDER-SKIN
"""  # ROUTE is a column that no rule reads
THREE_DRUGS = {"PRESCRIPTIONS: rows": 3, "PRESCRIPTIONS: rows kept": 3, "PRESCRIPTIONS: events": 3, "events": 34}
NO_LABS = {
    "LABEVENTS: rows": 0,
    "LABEVENTS: rows kept": 0,
    "LABEVENTS: events": 0,
    "LABEVENTS: events that name no visit": 0,
    "LABEVENTS: of these, in a visit by their time": 0,
    "events": 28,
    "events outside any visit": 0,
}
LONG = "x" * 1_000_000


def changed(table: str, old: str, new: str) -> Files:
    """A table with one cell changed."""
    assert TABLES[table].count(old) == 1, (table, old)
    return {f"{table}.csv": TABLES[table].replace(old, new)}


def drugs(old: str, new: str) -> Files:
    """The drugs with one cell changed."""
    assert DRUGS.count(old) == 1, old
    return {"PRESCRIPTIONS.csv": DRUGS.replace(old, new)}


def every(change: Callable[[str], str | bytes]) -> Files:
    """All tables, changed in the same way."""
    return {f"{name}.csv": change(text) for name, text in TABLES.items()}


def archive(content: bytes) -> Files:
    """The laboratory table as an archive."""
    return {"LABEVENTS.csv": None, "LABEVENTS.csv.gz": content}


def parquet(table: str, *columns: pl.Expr, keep: slice = slice(None), rows: int = 99) -> Files:
    """A table as Parquet, some of its columns retyped; `keep` cuts bytes away."""
    frame = pl.read_csv(io.StringIO(TABLES[table]), infer_schema=False).with_columns(*columns).head(rows)
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return {f"{table}.csv": None, f"{table}.parquet": buffer.getvalue()[keep]}


def rows(text: str, change: Callable[[str], str]) -> str:
    """A table with every row but the header changed."""
    header, *below = text.splitlines()
    return "\n".join([header, *map(change, below)]) + "\n"


_PACKED = gzip.compress(LABS.encode(), mtime=0)
_CHECKSUM = bytes([_PACKED[-8] ^ 0xFF])
_LATIN = ADMISSIONS.replace("ASIAN", "ASIÄN").encode("latin-1")
_GB = ADMISSIONS.replace("ASIAN", "汉族").encode("gb18030")
_FLOATS = pl.col("SUBJECT_ID", "HADM_ID", "ITEMID", "VALUENUM").cast(pl.Float64)

REFUSED: dict[str, tuple[Files, tuple[str, ...]]] = {
    # bytes
    "NUL in a number": (changed("LABEVENTS", "240", "2\x0040"), ("LABEVENTS.csv  VALUENUM  line 5", "no NUL byte")),
    "NUL in a column nobody reads": (drugs("BY-MOUTH", "BY\0MOUTH"), ("PRESCRIPTIONS.csv  ROUTE  line 3",)),
    "UTF-16": ({"LABEVENTS.csv": LABS.encode("utf-16")}, ("LABEVENTS.csv:1", "it seems to be UTF-16")),
    "UTF-16 without a mark": ({"LABEVENTS.csv": LABS.encode("utf-16-be")}, ("LABEVENTS.csv:1", "no NUL byte")),
    "Latin-1": ({"ADMISSIONS.csv": _LATIN}, ("ADMISSIONS.csv  ETHNICITY  line 4", "encoding: latin-1")),
    "GB18030": ({"ADMISSIONS.csv": _GB}, ("ADMISSIONS.csv  ETHNICITY  line 4", "gb18030")),
    "Latin-1 in the header": (
        {"PRESCRIPTIONS.csv": DRUGS.replace("ROUTE", "RÖUTE").encode("latin-1")},
        ("PRESCRIPTIONS.csv:1", "not UTF-8"),
    ),
    "Latin-1 in a dictionary": (
        {"D_LABITEMS.csv": (TABLES["D_LABITEMS"] + "50999,Öl,1-1\n").encode("latin-1")},
        ("D_LABITEMS.csv  LABEL  line 4",),
    ),
    # archives
    "truncated archive": (archive(_PACKED[:-20]), ("LABEVENTS.csv.gz", "a whole gzip archive")),
    "archive without its checksum": (archive(_PACKED[:-8]), ("LABEVENTS.csv.gz", "a whole gzip archive")),
    "archive with a wrong checksum": (archive(_PACKED[:-8] + _CHECKSUM + _PACKED[-7:]), ("LABEVENTS.csv.gz",)),
    "archive that is none": (archive(LABS.encode()), ("LABEVENTS.csv.gz", "a whole gzip archive")),
    "archive with something behind it": (archive(_PACKED + b"x"), ("LABEVENTS.csv.gz", "a whole gzip archive")),
    "archive of an archive": (archive(gzip.compress(_PACKED)), ("LABEVENTS.csv.gz:1",)),
    "archive of nothing": (archive(b""), ("empty table", "LABEVENTS.csv.gz")),
    "archive called .csv": ({"LABEVENTS.csv": _PACKED}, ("LABEVENTS.csv:1", "it seems to be a gzip archive")),
    # form
    "semicolons": ({"LABEVENTS.csv": LABS.replace(",", ";")}, ("separated by semicolons", "LABEVENTS.csv:1")),
    "tabs": ({"LABEVENTS.csv": LABS.replace(",", "\t")}, ("separated by tabs", "LABEVENTS.csv:1")),
    "bars": ({"LABEVENTS.csv": LABS.replace(",", "|")}, ("separated by bars", "LABEVENTS.csv:1")),
    "a cell too few": (changed("LABEVENTS", "0.9,mg/dL", "0.9"), ("LABEVENTS.csv  line 4", "6 cells")),
    "a cell too many": (changed("LABEVENTS", "240,mg/dL", "240,mg/dL,"), ("LABEVENTS.csv  line 5", "6 cells")),
    "a cell too many behind columns nobody reads": (
        drugs("BY-MOUTH", "BY-MOUTH,TWICE"),
        ("PRESCRIPTIONS.csv  line 3", "5 cells"),
    ),
    "a delimiter behind every row": (
        {"LABEVENTS.csv": rows(LABS, "{},".format)},
        ("LABEVENTS.csv  lines 2, 3, 4, 5", "6 cells"),
    ),
    "open quote in the first row": (changed("LABEVENTS", "1.4,", '1.4,"'), ("LABEVENTS.csv  near line 2",)),
    "open quote in the middle": (changed("LABEVENTS", "1.2,", '1.2,"'), ("LABEVENTS.csv  near line 3",)),
    "open quote in the last row": (changed("LABEVENTS", "240,", '240,"'), ("LABEVENTS.csv  near line 5",)),
    "open quote in a column nobody reads": (drugs("BY", '"BY'), ("PRESCRIPTIONS.csv  near line 3",)),
    "open quote in a dictionary": (changed("D_LABITEMS", "Glu", '"Glu'), ("D_LABITEMS.csv  near line 3",)),
    "two open quotes that pair up around rows": (
        {"PRESCRIPTIONS.csv": DRUGS.replace("IV-PUSH", '"IV-PUSH').replace("UNDER-SKIN", 'UNDER-SKIN"')},
        ("quotes around several rows", "PRESCRIPTIONS.csv  ROUTE  line 2", "written twice"),
    ),
    "text behind a closing quote": (drugs("Aspirin", '"As"pirin'), ("PRESCRIPTIONS.csv  near line 3", "twice")),
    "quotes with backslashes": (drugs("Aspirin", '"As\\"pi\\"rin"'), ("PRESCRIPTIONS.csv  near line 3", "twice")),
    "a column twice": (drugs("ROUTE", "DRUG"), ("column DRUG twice", "PRESCRIPTIONS.csv", "keep one")),
    "header again in the middle": (
        {"LABEVENTS.csv": LABS + LABS},
        ("LABEVENTS.csv  SUBJECT_ID  line 6", "LABEVENTS.csv  CHARTTIME  line 6"),
    ),
    "no header": ({"LABEVENTS.csv": LABS.split("\n", 1)[1]}, ("no header", "LABEVENTS.csv:1", "with its header")),
    "no header in a dictionary": (
        {"D_LABITEMS.csv": TABLES["D_LABITEMS"].split("\n", 1)[1]},
        ("no header", "D_LABITEMS.csv:1"),
    ),
    "header and first row in one line": (
        {"LABEVENTS.csv": LABS.replace("\n", "", 1)},
        ("missing column VALUEUOM", "found: SUBJECT_ID, HADM_ID, ITEMID, CHARTTIME, VALUENUM, ...)"),
    ),
    "blank line before the header": ({"LABEVENTS.csv": "\n" + LABS}, ("no header", "LABEVENTS.csv:1")),
    "nothing but line ends": ({"LABEVENTS.csv": "\n\n\n"}, ("no header", "LABEVENTS.csv:1")),
    "a line of blanks": (changed("LABEVENTS", "\n102", "\n  \n102"), ("LABEVENTS.csv  line 5", "6 cells")),
    "a line of delimiters": ({"LABEVENTS.csv": LABS + ",,,,,\n"}, ("LABEVENTS.csv  SUBJECT_ID  line 6",)),
    "end-of-file mark of DOS": ({"LABEVENTS.csv": LABS + "\x1a"}, ("LABEVENTS.csv  line 6", "6 cells")),
    "byte order mark in the middle": (
        changed("LABEVENTS", "102,7003", "\ufeff102,7003"),
        ("LABEVENTS.csv  SUBJECT_ID  line 5",),
    ),
    "0 bytes": ({"LABEVENTS.csv": ""}, ("empty table", "LABEVENTS.csv", "export the table again")),
    "header alone": (
        {"DIAGNOSES_ICD.csv": TABLES["DIAGNOSES_ICD"].split("\n")[0]},
        ("empty table", "DIAGNOSES_ICD.csv", "may_be_empty"),
    ),
    # cells
    "a million characters in a code": (
        drugs("Aspirin", LONG),
        ("too long for a code", "PRESCRIPTIONS.csv  DRUG  line 3", "500 characters"),
    ),
    "twenty million characters in a column nobody reads": (
        drugs("BY-MOUTH", "x" * 20_000_000),
        ("PRESCRIPTIONS.csv  near line 3", "16,777,216 characters"),
    ),
    "twelve million characters each in two columns": (
        {"PRESCRIPTIONS.csv": DRUGS.replace("BY-MOUTH", "x" * 12_000_000).replace("Aspirin", "x" * 12_000_001)},
        ("rows too long", "PRESCRIPTIONS.csv  DRUG  line 3"),
    ),
    "a million characters in a unit": (
        changed("LABEVENTS", "240,mg/dL", f"240,{LONG}"),
        ("too long for a unit", "LABEVENTS.csv  VALUEUOM  line 5"),
    ),
    "a million digits in a number": (changed("LABEVENTS", "240", "2" * 1_000_000), ("VALUENUM  line 5",)),
    "a million digits in an identifier": (
        changed("LABEVENTS", "102,7003", f"{'1' * 1_000_000},7003"),
        ("LABEVENTS.csv  SUBJECT_ID  line 5",),
    ),
    "the year 9999": (changed("ADMISSIONS", "2160-05-09", "9999-12-31"), ("ADMISSIONS.csv  DISCHTIME  line 5",)),
    "the year 9999 in a lab": (changed("LABEVENTS", "2160-02-01", "9999-12-31"), ("CHARTTIME  line 5", "1700 to 2500")),
    "the year 1600": (changed("PATIENTS", "1860-02-01", "1600-02-01"), ("PATIENTS.csv  DOB  line 4", "1700 to 2500")),
    "30 February": (changed("PATIENTS", "2100-03-05", "2100-02-30"), ("PATIENTS.csv  DOB  line 2",)),
    "day first": (changed("LABEVENTS", "2160-02-01 04:00:00", "01/02/2160 04:00"), ("CHARTTIME  line 5", "%Y-%m-%d")),
    "identifier beyond int64": (
        changed("LABEVENTS", "102,7003", "9223372036854775808,7003"),
        ("LABEVENTS.csv  SUBJECT_ID  line 5", "a whole number"),
    ),
    "visit beyond int64": (
        changed("LABEVENTS", "102,7003", "102,9223372036854775808"),
        ("LABEVENTS.csv  HADM_ID  line 5", "a whole number or nothing"),
    ),
    "identifier with a point": (changed("LABEVENTS", "102,7003", "102.0,7003"), ("SUBJECT_ID  line 5",)),
    "identifier in thousands": (changed("LABEVENTS", "102,7003", '"1,020",7003'), ("SUBJECT_ID  line 5",)),
    "identifier missing": (changed("LABEVENTS", "102,7003", ",7003"), ("SUBJECT_ID  line 5",)),
    **{
        f"number written as {word}": (changed("LABEVENTS", "240", cell), ("LABEVENTS.csv  VALUENUM  line 5", "finite"))
        for word, cell in {
            "text": "HIGH",
            "1,5": '"1,5"',
            "<0.1": "<0.1",
            "inf": "inf",
            "nan": "nan",
            "1e400": "1e400",
            "NULL": "NULL",
            "full-width digits": "１２",
        }.items()
    },
    # files
    "missing table": ({"LABEVENTS.csv": None}, ("missing file", "LABEVENTS", "found: ADMISSIONS.csv")),
    "missing dictionary": ({"D_ICD_DIAGNOSES.csv": None}, ("missing file", "D_ICD_DIAGNOSES")),
    "folder in place of a table": ({"LABEVENTS.csv": None, "LABEVENTS.csv/": ""}, ("missing file", "LABEVENTS")),
    "a table as csv and as csv.gz": ({"LABEVENTS.csv.gz": _PACKED}, ("found more than once", "LABEVENTS.csv.gz")),
    "a table in two cases": ({"labevents.csv": LABS}, ("found more than once", "LABEVENTS.csv, labevents.csv")),
    "a link to itself": ({"LABEVENTS.csv": None, "LABEVENTS.csv -> LABEVENTS.csv": ""}, ("missing file",)),
    # across rows
    "a visit twice": (
        {"ADMISSIONS.csv": ADMISSIONS + ADMISSIONS.splitlines()[2] + "\n"},
        ("ADMISSIONS.csv  HADM_ID  lines 3, 6", "remove the repeated rows"),
    ),
    "a visit of two patients": (
        changed("ADMISSIONS", "103,7004", "103,7003"),
        ("ADMISSIONS.csv  HADM_ID  lines 4, 5",),
    ),
    "a patient twice": (
        {"PATIENTS.csv": PATIENTS + PATIENTS.splitlines()[2] + "\n"},
        ("PATIENTS.csv  SUBJECT_ID  lines 3, 5",),
    ),
    "a patient twice, once with zeros": (
        {"PATIENTS.csv": PATIENTS + PATIENTS.splitlines()[2].replace("102", "00102") + "\n"},
        ("PATIENTS.csv  SUBJECT_ID  lines 3, 5",),
    ),
    "a visit of nobody": (changed("ADMISSIONS", "103,7004", "999,7004"), ("ADMISSIONS.csv  SUBJECT_ID  line 5",)),
    "a row of an unknown visit": (
        changed("DIAGNOSES_ICD", "101,7002", "101,8888"),
        ("1 of 11", "DIAGNOSES_ICD.csv: 1", "maximum_dropped_share"),
    ),
    "a row of an unknown patient": (changed("DIAGNOSES_ICD", "101,7002", "888,7002"), ("DIAGNOSES_ICD.csv: 1",)),
    # Parquet
    "Parquet cut short": (parquet("LABEVENTS", keep=slice(-30)), ("LABEVENTS.parquet", "a whole Parquet file")),
    "Parquet without its beginning": (parquet("LABEVENTS", keep=slice(40, None)), ("LABEVENTS.parquet",)),
    "Parquet of 0 bytes": (parquet("LABEVENTS", keep=slice(0)), ("LABEVENTS.parquet", "a whole Parquet file")),
    "Parquet that is a CSV": ({"LABEVENTS.csv": None, "LABEVENTS.parquet": LABS}, ("LABEVENTS.parquet",)),
    "Parquet with lists": (
        parquet("LABEVENTS", pl.concat_list("VALUEUOM")),
        ("column of type large_list", "LABEVENTS.parquet  VALUEUOM"),
    ),
    "Parquet with times of a day": (
        parquet("LABEVENTS", pl.col("CHARTTIME").str.to_datetime().dt.time()),
        ("column of type time64[ns]", "LABEVENTS.parquet  CHARTTIME"),
    ),
    "Parquet with bytes that are no text": (
        parquet("LABEVENTS", pl.lit(b"\xff\xfe").alias("VALUEUOM")),
        ("not UTF-8", "LABEVENTS.parquet  VALUEUOM"),
    ),
    "Parquet with a flag as true and false": (
        parquet("ADMISSIONS", pl.col("HOSPITAL_EXPIRE_FLAG") == "1"),
        ("column of true and false", "ADMISSIONS.parquet  HOSPITAL_EXPIRE_FLAG", "a cell of the rules: 1"),
    ),
    "Parquet with identifiers beyond int64": (
        parquet("LABEVENTS", pl.lit(2**64 - 1, dtype=pl.UInt64).alias("SUBJECT_ID")),
        ("LABEVENTS.parquet  SUBJECT_ID  rows 1, 2, 3, 4",),
    ),
}

SAME: dict[str, Files] = {
    "archives": {"LABEVENTS.csv": None, "LABEVENTS.csv.gz": _PACKED},
    "archives joined": archive(gzip.compress(LABS[:100].encode()) + gzip.compress(LABS[100:].encode())),
    "archive with a byte order mark": archive(gzip.compress(("\ufeff" + LABS).encode())),
    "CRLF": every(lambda text: text.replace("\n", "\r\n")),
    "CR": every(lambda text: text.replace("\n", "\r")),
    "line ends of both kinds": {"LABEVENTS.csv": LABS.replace("\n", "\r\n", 2)},
    "byte order marks": every(lambda text: "\ufeff" + text),
    "no line end at the end": every(str.rstrip),
    "quotes around every cell": every(
        lambda text: (
            "".join('"' + '","'.join(line.replace('"', "").split(",")) + '"\n' for line in text.splitlines())
            if '"' not in text
            else text
        )
    ),
    "blank lines": {"LABEVENTS.csv": LABS.replace("\n", "\n\n")},
    "blank columns at the end": {"LABEVENTS.csv": LABS.replace("\n", ",,\n")},
    "a column nobody reads twice": {
        "LABEVENTS.csv": "".join(f"{line},{end},{end}\n" for line, end in zip(LABS.splitlines(), "Xabcd", strict=True))
    },
    "blanks around cells": changed("LABEVENTS", "102,7003", " 102 ,\t7003"),
    "leading zeros": changed("LABEVENTS", "102,7003", "000102,07003"),
    "a link to the folder itself": {"again -> .": ""},
    "a link to itself beside the tables": {"loop -> loop": ""},
    "file names in lower case": {
        **{f"{name}.csv": None for name in TABLES},
        **{f"{name.lower()}.CSV": text for name, text in TABLES.items()},
    },
    "tables in folders": {
        **{f"{name}.csv": None for name in TABLES},
        **{f"{'dict' if name.startswith('D_') else 'hosp'}/{name}.csv": text for name, text in TABLES.items()},
    },
    "a dictionary with a code twice": {"D_LABITEMS.csv": TABLES["D_LABITEMS"] + "50931,Sugar,2345-7\n"},
    "a dictionary joined with itself, header and all": {"D_LABITEMS.csv": TABLES["D_LABITEMS"] * 2},
    "Parquet": parquet("LABEVENTS"),
    "Parquet with floats and times": parquet("LABEVENTS", _FLOATS, pl.col("CHARTTIME").str.to_datetime()),
    "Parquet with NaN for nothing": parquet("LABEVENTS", _FLOATS.fill_null(float("nan"))),
    "Parquet with days": parquet("PATIENTS", pl.col("DOB").str.to_datetime().cast(pl.Date)),
    "Parquet with categories": parquet("LABEVENTS", pl.col("VALUEUOM", "ITEMID").cast(pl.Categorical)),
    "Parquet with decimals": parquet(
        "LABEVENTS", pl.col("SUBJECT_ID").cast(pl.Decimal(18, 0)), pl.col("VALUENUM").cast(pl.Decimal(18, 4))
    ),
    "Parquet with text as bytes": parquet("LABEVENTS", pl.col("VALUEUOM").cast(pl.Binary)),
    "Parquet with a time zone": parquet("LABEVENTS", pl.col("CHARTTIME").str.to_datetime(time_zone="Asia/Shanghai")),
}

COUNTED: dict[str, tuple[Files, dict[str, int | None]]] = {
    "an untouched longer table": ({"PRESCRIPTIONS.csv": DRUGS}, THREE_DRUGS),
    "quotes around line ends": (drugs("BY-MOUTH", '"BY\nMOUTH, or\r\n\nso"'), THREE_DRUGS),
    "quotes around line ends in a code": (drugs("Aspirin", '"Aspirin\n100"'), THREE_DRUGS),
    "a quote inside a cell": (drugs("Aspirin", 'Aspirin 5" tube'), THREE_DRUGS),
    "quotes written twice": (drugs("Aspirin", '"Aspirin ""forte"", 100"'), THREE_DRUGS),
    "Latin-1 in a column nobody reads": (
        {"PRESCRIPTIONS.csv": DRUGS.replace("BY-MOUTH", "BÖY").encode("latin-1")},
        THREE_DRUGS,
    ),
    "a million characters in a column nobody reads": (drugs("BY-MOUTH", LONG), THREE_DRUGS),
    "a header alone where that may be": ({"LABEVENTS.csv": LABS.split("\n")[0]}, NO_LABS),
    "Parquet without rows": (parquet("LABEVENTS", rows=0), NO_LABS),
    "negative identifiers": (every(lambda text: text.replace("102,", "-102,")), {}),
    "admission before birth": (
        changed("PATIENTS", "2100-03-05", "2155-03-05"),
        {"visits that start more than a day before the patient's birth (kept)": 2},
    ),
    "discharge before admission": (
        changed("ADMISSIONS", "2151-06-12 09", "2151-06-09 09"),
        {"visits that end before they start (kept)": 1},
    ),
    "death before birth": (
        changed("PATIENTS", "2160-02-03", "2080-02-03"),
        {"patients who die before they are born (kept)": 1},
    ),
    "a patient of whom nothing is known": (
        {"PATIENTS.csv": PATIENTS + "104,,,\n"},
        {
            "patients": 4,
            "patients without an event": 1,
            "PATIENTS: rows": 4,
            "PATIENTS: rows left out, gives no event": 1,
            "PATIENTS: events missed for want of a code": 1,
            "PATIENTS: events missed for want of a time": 1,
        },
    ),
    "a row without a code": (
        changed("DIAGNOSES_ICD", "4280", ""),
        {
            "DIAGNOSES_ICD: rows left out, gives no event": 1,
            "DIAGNOSES_ICD: rows kept": 3,
            "DIAGNOSES_ICD: events missed for want of a code": 1,
            "DIAGNOSES_ICD: events": 3,
            "events": 31,
        },
    ),
    "Parquet of nothing but nulls in a column": (parquet("LABEVENTS", pl.lit(None).alias("VALUEUOM")), {}),
}
