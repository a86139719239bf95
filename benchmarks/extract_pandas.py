"""Raw MIMIC-III tables -> events -> cohort tokens, in pandas: what benchmarks/extract.py compares against.

In:  a folder of MIMIC-III CSV tables, a site configuration, a study plan.   Out: `events`, `patients` and `tokens` as
Parquet, with the rows, columns and order of `events/data` and of `visits/`.
Never: Polars for work on tables; a trick for speed or against it. What a code means (roll-up, laboratory table, groups,
hash of the split) is asked of fairsynth once for each distinct code, because those are definitions, not table work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from fairsynth.config import CohortConfig, LevelsConfig, StudyPlan, read_site
from fairsynth.schemas import SPLITS
from fairsynth.visits.bins import AGE_BINS, DAYS_PER_YEAR, GAP_BINS, LOS_BINS, SHIFTED_TO_YEARS, SHIFTED_YEARS
from fairsynth.visits.groups import read_groups
from fairsynth.visits.labs import BINS, NORMAL, SIGNIFICANT_DIGITS, find_lab, plain_unit
from fairsynth.visits.patients import SEX_OF_GENDER
from fairsynth.visits.rollup import roll_up
from fairsynth.visits.split import split

FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d")
KEY = ["SUBJECT_ID", "HADM_ID"]
VISIT = ["subject_id", "visit_id"]
ORDER = ["subject_id", "time", "visit_id", "code", "numeric_value", "unit"]
CODED = ("DIAG", "PROC")  # coded after the visit, for all of it


def run(tables: Path, *, config: Path, plan: StudyPlan, out: Path) -> dict[str, float]:
    """Write events, patients and tokens into `out`; the seconds of both steps."""
    out.mkdir(parents=True, exist_ok=True)
    site, groups = read_site(config), read_groups(config / "groups.yaml")
    start = time.perf_counter()
    people, admissions = read_people(tables), read_admissions(tables)
    check_identifiers(people, admissions)
    events = all_events(tables, people=people, admissions=admissions, tolerated=site.maximum_dropped_share)
    events.to_parquet(out / "events.parquet", index=False)
    half = time.perf_counter()
    visits = cohort_visits(people, admissions, cohort=site.cohort)
    records = cohort_records(visits, group_of=groups.group_of, plan=plan)
    cohort_patients(records, plan=plan, source=site.source).to_parquet(out / "patients.parquet", index=False)
    tokens = all_tokens(
        events,
        records,
        loinc=read_loinc(tables),
        exclude=site.cohort.exclude_codes,
        levels=plan.vocabulary.levels,
    )
    tokens.to_parquet(out / "tokens.parquet", index=False)
    return {"events": half - start, "cohort": time.perf_counter() - half}


# --- tables ----------------------------------------------------------------------------------------------------------


def read(
    tables: Path,
    name: str,
    *,
    ids: Sequence[str] = (),
    times: Sequence[str] = (),
    text: Sequence[str] = (),
    numbers: Sequence[str] = (),
) -> pd.DataFrame:
    """The named columns of one table, parsed. Raises ValueError with the number of cells that do not parse."""
    columns = [*ids, *times, *text, *numbers]
    frame = pd.read_csv(
        tables / f"{name}.csv",
        usecols=lambda column: column.upper() in columns,
        dtype={spelled: str for column in (*times, *text) for spelled in (column, column.lower())},
        keep_default_na=False,
        na_values=[""],
    )
    frame.columns = frame.columns.str.upper()
    for column in (*times, *text):
        frame[column] = frame[column].str.strip().replace("", None)
    for column in ids:
        frame[column] = parsed(name, frame[column], pd.to_numeric(frame[column], errors="coerce")).astype("Int64")
    for column in times:
        frame[column] = parsed(name, frame[column], to_times(frame[column]))
    for column in numbers:
        frame[column] = parsed(name, frame[column], pd.to_numeric(frame[column], errors="coerce")).astype("float32")
    return frame[columns]


def to_times(text: pd.Series) -> pd.Series:
    """Times by the first format that fits."""
    found = pd.to_datetime(text, format=FORMATS[0], errors="coerce")
    missing = found.isna() & text.notna()
    if missing.any():
        found[missing] = pd.to_datetime(text[missing], format=FORMATS[1], errors="coerce")
    return found.astype("datetime64[us]")


def parsed(table: str, raw: pd.Series, values: pd.Series) -> pd.Series:
    bad = int((raw.notna() & values.isna()).sum())
    if bad:
        raise ValueError(f"{table}.{raw.name}: {bad} cells do not parse")
    return values


def read_people(tables: Path) -> pd.DataFrame:
    return read(tables, "PATIENTS", ids=["SUBJECT_ID"], times=["DOB", "DOD"], text=["GENDER"])


def read_admissions(tables: Path) -> pd.DataFrame:
    return read(
        tables,
        "ADMISSIONS",
        ids=KEY,
        times=["ADMITTIME", "DISCHTIME", "DEATHTIME"],
        text=["ADMISSION_TYPE", "DISCHARGE_LOCATION", "ETHNICITY", "HOSPITAL_EXPIRE_FLAG"],
    )


def read_loinc(tables: Path) -> dict[str, str]:
    """Event code of a laboratory item -> its LOINC code."""
    items = read(tables, "D_LABITEMS", text=["ITEMID", "LOINC_CODE"]).dropna()
    return dict(zip("LAB//" + items["ITEMID"], items["LOINC_CODE"], strict=True))


def check_identifiers(people: pd.DataFrame, admissions: pd.DataFrame) -> None:
    """Patients and admissions are named once, and every admission has a patient and both its times."""
    faults = {
        "missing identifiers": people["SUBJECT_ID"].isna().sum() + admissions[KEY].isna().any(axis=1).sum(),
        "duplicate patients": people["SUBJECT_ID"].duplicated().sum(),
        "duplicate admissions": admissions["HADM_ID"].duplicated().sum(),
        "admissions of unknown patients": (~admissions["SUBJECT_ID"].isin(people["SUBJECT_ID"])).sum(),
        "admissions without times": admissions[["ADMITTIME", "DISCHTIME"]].isna().any(axis=1).sum(),
    }
    if any(faults.values()):
        raise ValueError(f"the tables cannot be used: {faults}")


# --- events ----------------------------------------------------------------------------------------------------------


def all_events(tables: Path, *, people: pd.DataFrame, admissions: pd.DataFrame, tolerated: float) -> pd.DataFrame:
    """Every event of the source, sorted. Raises ValueError when too many rows name unknown patients or admissions."""
    visits = admissions[[*KEY, "ADMITTIME", "DISCHTIME"]]
    units = read(tables, "ICUSTAYS", ids=KEY, times=["INTIME"], text=["FIRST_CAREUNIT"])
    diagnoses = read(tables, "DIAGNOSES_ICD", ids=KEY, text=["ICD9_CODE"])
    procedures = read(tables, "PROCEDURES_ICD", ids=KEY, text=["ICD9_CODE"])
    drugs = read(tables, "PRESCRIPTIONS", ids=KEY, times=["STARTDATE"], text=["DRUG"])
    labs = read(tables, "LABEVENTS", ids=KEY, times=["CHARTTIME"], text=["ITEMID", "VALUEUOM"], numbers=["VALUENUM"])
    rows = len(people) + len(admissions) + sum(map(len, (units, diagnoses, procedures, drugs, labs)))
    units, diagnoses, procedures, drugs, labs = kept = [
        placed(frame, people=people, visits=visits) for frame in (units, diagnoses, procedures, drugs, labs)
    ]
    dropped = rows - len(people) - len(admissions) - sum(map(len, kept))
    if dropped > tolerated * rows:
        raise ValueError(f"{dropped} of {rows} rows name an unknown patient or admission")
    died = admissions[admissions["HOSPITAL_EXPIRE_FLAG"] == "1"]
    parts = [
        events_of(people, code="MEDS_BIRTH", time=people["DOB"]),
        events_of(people, code="MEDS_DEATH", time=people["DOD"]),
        events_of(people, code="GENDER//" + people["GENDER"]),
        events_of(admissions, code="ADMISSION//" + admissions["ADMISSION_TYPE"], time=admissions["ADMITTIME"]),
        events_of(admissions, code="ETHNICITY//" + admissions["ETHNICITY"], time=admissions["ADMITTIME"]),
        events_of(died, code="DEATH//HOSPITAL", time=died["DEATHTIME"].fillna(died["DISCHTIME"])),
        events_of(admissions, code="DISCHARGE//" + admissions["DISCHARGE_LOCATION"], time=admissions["DISCHTIME"]),
        events_of(units, code="UNIT//" + units["FIRST_CAREUNIT"], time=units["INTIME"]),
        events_of(diagnoses, code="DIAG//ICD9CM//" + diagnoses["ICD9_CODE"], time=diagnoses["DISCHTIME"]),
        events_of(procedures, code="PROC//ICD9PROC//" + procedures["ICD9_CODE"], time=procedures["DISCHTIME"]),
        events_of(drugs, code="DRUG//" + drugs["DRUG"], time=drugs["STARTDATE"]),
        attached(events_of(labs, code="LAB//" + labs["ITEMID"], time=labs["CHARTTIME"]), visits),
    ]
    return pd.concat(parts).sort_values(ORDER, na_position="first", ignore_index=True)


def placed(rows: pd.DataFrame, *, people: pd.DataFrame, visits: pd.DataFrame) -> pd.DataFrame:
    """The rows of known patients and, where they name an admission, of an admission of that patient."""
    rows = rows[rows["SUBJECT_ID"].isin(people["SUBJECT_ID"])].merge(visits, on=KEY, how="left")
    return rows[rows["HADM_ID"].isna() | rows["ADMITTIME"].notna()]


def events_of(rows: pd.DataFrame, *, code: pd.Series | str, time: pd.Series | None = None) -> pd.DataFrame:
    """One event a row that has the code and, if the event has one, the time."""
    nothing = pd.Series(index=rows.index, dtype="float32")
    events = pd.DataFrame(
        {
            "subject_id": rows["SUBJECT_ID"].astype("int64"),
            "time": pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us]") if time is None else time,
            "code": pd.Series(code, index=rows.index, dtype="str"),
            "numeric_value": rows.get("VALUENUM", nothing),
            "visit_id": rows.get("HADM_ID", nothing.astype("Int64")),
            "unit": rows.get("VALUEUOM", nothing.astype("str")),
        }
    )
    return events.dropna(subset=["code"] if time is None else ["code", "time"])


def attached(events: pd.DataFrame, visits: pd.DataFrame) -> pd.DataFrame:
    """Events without an admission get that of their patient which began last before them, if it had not ended."""
    outside = events[events["visit_id"].isna()].drop(columns="visit_id").sort_values("time")
    stays = visits.sort_values(["ADMITTIME", "HADM_ID"]).rename(columns={"SUBJECT_ID": "subject_id"})
    stays["subject_id"] = stays["subject_id"].astype("int64")
    found = pd.merge_asof(outside, stays, left_on="time", right_on="ADMITTIME", by="subject_id", direction="backward")
    found["visit_id"] = found["HADM_ID"].where(found["time"] <= found["DISCHTIME"])
    return pd.concat([events[events["visit_id"].notna()], found[events.columns]])


# --- cohort ----------------------------------------------------------------------------------------------------------


def cohort_visits(people: pd.DataFrame, admissions: pd.DataFrame, *, cohort: CohortConfig) -> pd.DataFrame:
    """The admissions of the cohort, ordered within the patient, with age, gap and length of stay in days."""
    people = people.assign(sex=("GENDER//" + people["GENDER"]).map(SEX_OF_GENDER)).dropna(subset=["DOB", "sex"])
    visits = admissions.dropna(subset=["ADMISSION_TYPE"]).merge(people, on="SUBJECT_ID")
    visits = visits.sort_values(["SUBJECT_ID", "ADMITTIME", "HADM_ID"])
    age = days(visits["ADMITTIME"] - visits["DOB"]).clip(lower=0)
    visits["age_days"] = age.mask(age > SHIFTED_YEARS * DAYS_PER_YEAR, SHIFTED_TO_YEARS * DAYS_PER_YEAR)
    low, high = cohort.minimum_age_years * DAYS_PER_YEAR, cohort.maximum_age_years * DAYS_PER_YEAR
    visits = visits[visits["age_days"].between(low, high)]
    visits = visits[visits.groupby("SUBJECT_ID")["HADM_ID"].transform("size") >= cohort.minimum_visits]
    by_patient = visits.groupby("SUBJECT_ID")
    return pd.DataFrame(
        {
            "subject_id": visits["SUBJECT_ID"].astype("int64"),
            "visit_id": visits["HADM_ID"].astype("int64"),
            "admitted": visits["ADMITTIME"],
            "discharged": visits["DISCHTIME"],
            "died": visits["HOSPITAL_EXPIRE_FLAG"] == "1",
            "raw": visits["ETHNICITY"],
            "sex": visits["sex"],
            "age_days": visits["age_days"],
            "order": by_patient.cumcount(),
            "gap_days": days(visits["ADMITTIME"] - by_patient["DISCHTIME"].shift()).clip(lower=0),
            "los_days": days(visits["DISCHTIME"] - visits["ADMITTIME"]).clip(lower=0),
        }
    )


def days(span: pd.Series) -> pd.Series:
    return span.dt.total_seconds() / 86_400


def cohort_records(visits: pd.DataFrame, *, group_of: Callable[[str], str | None], plan: StudyPlan) -> pd.DataFrame:
    """The admissions of each patient's record: the last ones, with the label and the time of prediction."""
    first = visits.dropna(subset=["raw"]).groupby("subject_id")["raw"].first().reset_index()
    first["group"] = first["raw"].map({raw: group_of(raw) for raw in first["raw"].unique()})
    if first["group"].isna().any():
        raise ValueError(f"{first['group'].isna().sum()} patients have a string without a group")
    records = visits.drop(columns="raw").merge(first, on="subject_id")
    last = records.groupby("subject_id").tail(1).set_index("subject_id")
    examples = pd.DataFrame(
        {
            "last_order": last["order"],
            "predicted_at": last["admitted"] + pd.Timedelta(hours=plan.task.observation_hours),
            "label": last["died"].astype("int64"),
        }
    )
    records = records.merge(examples, left_on="subject_id", right_index=True)
    records = records[records["order"] > records["last_order"] - plan.generator.maximum_visits]
    position = records.groupby("subject_id").cumcount()
    return records.assign(position=position, open=records["order"] == records["last_order"])


def cohort_patients(records: pd.DataFrame, *, plan: StudyPlan, source: str) -> pd.DataFrame:
    """One row a patient, with its split."""
    last = records.groupby("subject_id").tail(1).reset_index(drop=True)
    which = split(last["subject_id"].to_numpy(), shares=plan.split, seed=plan.seed, source=source)
    return last.assign(
        age=binned(last["age_days"], AGE_BINS), visits=last["position"] + 1, split=[SPLITS[index] for index in which]
    )[["subject_id", "group", "raw", "sex", "age", "label", "visits", "split"]]


def binned(values: pd.Series, bins: Mapping[str, tuple[float, float]]) -> pd.Series:
    """The bin that holds each value; the outer bins are open."""
    edges = [-np.inf, *(low for low, _ in list(bins.values())[1:]), np.inf]
    return pd.cut(values, edges, right=False, labels=list(bins)).astype("str")


# --- tokens ----------------------------------------------------------------------------------------------------------


def all_tokens(
    events: pd.DataFrame,
    records: pd.DataFrame,
    *,
    loinc: Mapping[str, str],
    exclude: tuple[str, ...],
    levels: LevelsConfig,
) -> pd.DataFrame:
    """subject_id, position, token: what is known of each admission at the time of prediction."""
    codes = tokens_of_codes(events["code"].unique(), loinc=loinc, exclude=exclude, levels=levels)
    inside = events[events["visit_id"].notna() & events["code"].isin(codes["code"])]
    where = records[[*VISIT, "position", "predicted_at", "open"]]
    inside = inside.astype({"visit_id": "int64"}).merge(where, on=VISIT).merge(codes, on="code")
    known = (inside["time"] <= inside["predicted_at"]) | (inside["kind"].isin(CODED) & inside["open"])
    inside = inside[known]
    parts = [inside.dropna(subset=["token"]), lab_tokens(inside[inside["kind"] == "LAB"]), *interval_tokens(records)]
    columns = ["subject_id", "position", "token"]
    return pd.concat([part[columns] for part in parts]).drop_duplicates().sort_values(columns, ignore_index=True)


def tokens_of_codes(
    codes: np.ndarray, *, loinc: Mapping[str, str], exclude: tuple[str, ...], levels: LevelsConfig
) -> pd.DataFrame:
    """Kind, token and LOINC code of every code that is in the vocabulary."""
    wanted = sorted(code for code in codes if not code.startswith(exclude))
    parents = {"code": list(loinc), "parent_codes": [[f"LOINC/{parent}"] for parent in loinc.values()]}
    described = pl.DataFrame(parents).with_columns(description=pl.lit(None, dtype=pl.String))
    rolled = roll_up(pl.Series("code", wanted, dtype=pl.String), described=described, levels=levels)
    return pd.DataFrame(rolled.to_dict(as_series=False))


def lab_tokens(labs: pd.DataFrame) -> pd.DataFrame:
    """The last and the most abnormal bin of each test in each admission."""
    labs = labs.rename(columns={"loinc": "item"}).merge(conversions(labs), on=["code", "unit"])
    value = significant(labs["numeric_value"].astype("float64") * labs["factor"])
    labs = labs[value.between(labs["least"], labs["greatest"])]
    value = value[labs.index]
    below = (value < labs["cut0"]).astype(int) + (value < labs["cut1"]).astype(int)
    above = (value > labs["cut2"]).astype(int) + (value > labs["cut3"]).astype(int)
    labs = labs.assign(bin=NORMAL - below + above)
    labs["severity"] = (labs["bin"] - NORMAL).abs()
    test = ["subject_id", "position", "loinc"]
    last = labs.sort_values([*test, "time", "bin"]).drop_duplicates(test, keep="last")
    worst = labs.sort_values([*test, "severity", "time", "bin"]).drop_duplicates(test, keep="last")
    both = pd.concat([last, worst])
    return both.assign(token="LAB//" + both["loinc"] + "//" + both["bin"].map(dict(enumerate(BINS))))


def conversions(labs: pd.DataFrame) -> pd.DataFrame:
    """Factor and cut points of each kind of measurement that the laboratory table knows."""
    rows = []
    for code, unit, loinc in labs[["code", "unit", "loinc"]].drop_duplicates().itertuples(index=False):
        named = None if pd.isna(unit) else unit
        lab = find_lab(None if pd.isna(loinc) else loinc, named)
        if lab is not None:
            factor = lab.units[plain_unit(named)]
            cuts = {f"cut{index}": np.nan if cut is None else cut for index, cut in enumerate(lab.cuts)}
            least, greatest = lab.plausible
            key = {"code": code, "unit": unit, "loinc": lab.loinc}
            rows.append({**key, "factor": factor, **cuts, "least": least, "greatest": greatest})
    return pd.DataFrame(rows)


def significant(values: pd.Series) -> pd.Series:
    """Values rounded to the digits that a 32-bit float holds."""
    size = np.floor(np.log10(values.abs().where(values != 0, 1.0)))
    scale = 10.0 ** (SIGNIFICANT_DIGITS - 1 - size)
    return (values * scale).round() / scale


def interval_tokens(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gaps before all admissions but the first, and lengths of the stays that are over."""
    gaps = records[records["position"] > 0]
    over = records[~records["open"] & (records["discharged"] <= records["predicted_at"])]
    return (
        gaps.assign(token="GAP//" + binned(gaps["gap_days"], GAP_BINS)),
        over.assign(token="LOS//" + binned(over["los_days"], LOS_BINS)),
    )
