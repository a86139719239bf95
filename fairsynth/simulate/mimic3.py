"""Tables as MIMIC-III v1.4 ships them: upper-case headers, ICD-9 without dots, ages above 89 hidden.

In:  a `Part`.   Out: a frame for each table, in the source's column order but for ROW_ID.
Never: file access.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from fairsynth.config import SimulationConfig
from fairsynth.simulate import content, tables
from fairsynth.simulate.population import DAY
from fairsynth.simulate.source import Source
from fairsynth.simulate.truth import Part, seen_patients

COLUMNS: dict[str, tuple[str, ...]] = {
    "PATIENTS": ("ROW_ID", "SUBJECT_ID", "GENDER", "DOB", "DOD", "DOD_HOSP", "DOD_SSN", "EXPIRE_FLAG"),
    "ADMISSIONS": (
        *("ROW_ID", "SUBJECT_ID", "HADM_ID", "ADMITTIME", "DISCHTIME", "DEATHTIME", "ADMISSION_TYPE"),
        *("ADMISSION_LOCATION", "DISCHARGE_LOCATION", "INSURANCE", "LANGUAGE", "RELIGION", "MARITAL_STATUS"),
        *("ETHNICITY", "EDREGTIME", "EDOUTTIME", "DIAGNOSIS", "HOSPITAL_EXPIRE_FLAG", "HAS_CHARTEVENTS_DATA"),
    ),
    "ICUSTAYS": (
        *("ROW_ID", "SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "DBSOURCE", "FIRST_CAREUNIT", "LAST_CAREUNIT"),
        *("FIRST_WARDID", "LAST_WARDID", "INTIME", "OUTTIME", "LOS"),
    ),
    "DIAGNOSES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"),
    "D_ICD_DIAGNOSES": ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
    "PROCEDURES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"),
    "D_ICD_PROCEDURES": ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
    "PRESCRIPTIONS": (
        *("ROW_ID", "SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "STARTDATE", "ENDDATE", "DRUG_TYPE", "DRUG"),
        *("DRUG_NAME_POE", "DRUG_NAME_GENERIC", "FORMULARY_DRUG_CD", "GSN", "NDC", "PROD_STRENGTH", "DOSE_VAL_RX"),
        *("DOSE_UNIT_RX", "FORM_VAL_DISP", "FORM_UNIT_DISP", "ROUTE"),
    ),
    "LABEVENTS": (
        *("ROW_ID", "SUBJECT_ID", "HADM_ID", "ITEMID", "CHARTTIME", "VALUE", "VALUENUM", "VALUEUOM", "FLAG"),
    ),
    "D_LABITEMS": ("ROW_ID", "ITEMID", "LABEL", "FLUID", "CATEGORY", "LOINC_CODE"),
}

WARDS = {"CCU": 7, "CSRU": 14, "MICU": 52, "SICU": 33, "TSICU": 14}
HIDDEN_AGE = 89  # years; patients who are older at any visit get a date of birth 300 years before the first
ELECTIVE = {"cardiac_surgery": 0.55, "oncological": 0.32, "ischaemic": 0.14, "gastrointestinal": 0.10}
URGENT = 0.027
EMERGENCY_DOORS = {"EMERGENCY ROOM ADMIT": 0.60, "CLINIC REFERRAL/PREMATURE": 0.18, "TRANSFER FROM HOSP/EXTRAM": 0.22}
ELECTIVE_DOORS = {"PHYS REFERRAL/NORMAL DELI": 0.97, "TRANSFER FROM HOSP/EXTRAM": 0.03}
HOMES = {"HOME": 0.34, "HOME HEALTH CARE": 0.40, "SNF": 0.12, "REHAB/DISTINCT PART HOSP": 0.14}
CARE = {"SNF": 0.46, "REHAB/DISTINCT PART HOSP": 0.26, "HOME HEALTH CARE": 0.17, "LONG TERM CARE HOSPITAL": 0.11}
OLD = {"Medicare": 0.88, "Private": 0.10, "Medicaid": 0.02}
YOUNG = {"Private": 0.56, "Medicaid": 0.17, "Medicare": 0.20, "Government": 0.05, "Self Pay": 0.02}
LANGUAGES = {"ENGL": 0.50, "": 0.42, "SPAN": 0.02, "RUSS": 0.03, "PTUN": 0.02, "CANT": 0.01}
RELIGIONS = {"CATHOLIC": 0.36, "NOT SPECIFIED": 0.24, "PROTESTANT QUAKER": 0.13, "JEWISH": 0.10, "UNOBTAINABLE": 0.17}
MARITAL = {"MARRIED": 0.48, "SINGLE": 0.26, "WIDOWED": 0.14, "DIVORCED": 0.06, "": 0.06}


def chunk(part: Part, config: SimulationConfig) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows of one chunk of patients, table by table."""
    source = part.process.source
    if source.procedures is None:
        raise ValueError("MIMIC-III has procedures")
    diagnoses = content.diagnoses(part, knobs=config.bias)
    procedures = content.procedures(part, knobs=config.bias)
    icu = tables.icu_table(part, wards=WARDS)
    era = np.where(icu["SUBJECT_ID"].to_numpy() % 5 < 3, "carevue", "metavision")
    yield "PATIENTS", _patients(part)
    yield "ADMISSIONS", _admissions(part)
    yield "ICUSTAYS", icu.with_columns(DBSOURCE=pl.Series(era))
    yield "DIAGNOSES_ICD", tables.code_table(part, diagnoses, source.diagnoses.table["code"], column="ICD9_CODE")
    yield "PROCEDURES_ICD", tables.code_table(part, procedures, source.procedures.table["code"], column="ICD9_CODE")
    yield "PRESCRIPTIONS", _prescriptions(part, config.detail)
    labs = content.labs(part, detail=config.detail, knobs=config.bias)
    yield "LABEVENTS", tables.lab_table(part, labs, low="abnormal", high="abnormal", normal=None)


def dictionaries(source: Source) -> dict[str, pl.DataFrame]:
    """The dictionary tables: the codes and items that the simulation uses."""
    if source.procedures is None:
        raise ValueError("MIMIC-III has procedures")
    labels = {"ITEMID": "itemid", "LABEL": "label", "FLUID": "fluid", "CATEGORY": "category", "LOINC_CODE": "loinc"}
    titles = {"ICD9_CODE": "code", "SHORT_TITLE": "title", "LONG_TITLE": "title"}
    return {
        "D_ICD_DIAGNOSES": tables.renamed(source.diagnoses.table, titles),
        "D_ICD_PROCEDURES": tables.renamed(source.procedures.table, titles),
        "D_LABITEMS": tables.renamed(source.labs.table, labels),
    }


def _patients(part: Part) -> pl.DataFrame:
    """One row a patient who is in the tables; the date of death is known for deaths in hospital only."""
    patients, visits = part.planned.patients, part.planned.visits
    row = np.flatnonzero(seen_patients(part))
    oldest = np.zeros(len(patients.number))
    np.maximum.at(oldest, visits.patient[part.seen], visits.age_days[part.seen] / 365.25)
    born = patients.first // DAY - patients.age_days
    hidden = oldest > HIDDEN_AGE
    born = np.where(hidden, patients.first // DAY - 109_574, born)  # 300 years
    death = tables.death_minutes(part)[row]
    dead = death >= 0
    dod = tables.times(death // DAY * DAY, where=dead)
    return pl.DataFrame(
        {
            "SUBJECT_ID": tables.FIRST_SUBJECT + patients.number[row],
            "GENDER": np.where(patients.female[row], "F", "M"),
            "DOB": tables.times(born[row] * DAY),
            "DOD": dod,
            "DOD_HOSP": dod,
            "DOD_SSN": tables.times(death // DAY * DAY, where=dead & (patients.number[row] % 4 < 3)),
            "EXPIRE_FLAG": dead.astype(np.int64),
        }
    )


def _admissions(part: Part) -> pl.DataFrame:
    source, patients, visits = part.process.source, part.planned.patients, part.planned.visits
    rng = part.streams("admission details")
    patient = visits.patient
    kind = patients.kind[patient]
    elective = rng.random(len(kind)) < np.array([ELECTIVE.get(name, 0.04) for name in source.classes.names])[kind]
    urgent = ~elective & (rng.random(len(kind)) < URGENT)
    uniform = rng.random((6, len(kind)))
    waiting = rng.integers(60, 600, len(kind))
    personal = rng.random((3, len(patients.number)))[:, patient]
    frail = visits.severity + visits.age_days / 365.25 / 17 > 4.2
    discharged = visits.admitted + visits.stay
    door = np.where(elective, tables.pick(ELECTIVE_DOORS, uniform[0]), tables.pick(EMERGENCY_DOORS, uniform[0]))
    out = np.where(frail, tables.pick(CARE, uniform[1]), tables.pick(HOMES, uniform[1]))
    old = visits.age_days / 365.25 >= 65
    first = content.first_diagnosis(part)
    frame = pl.DataFrame(
        {
            "SUBJECT_ID": tables.FIRST_SUBJECT + patients.number[patient],
            "HADM_ID": tables.FIRST_ADMISSION + visits.number,
            "ADMITTIME": tables.times(visits.admitted),
            "DISCHTIME": tables.times(discharged),
            "DEATHTIME": tables.times(discharged, where=visits.recorded),
            "ADMISSION_TYPE": np.where(elective, "ELECTIVE", np.where(urgent, "URGENT", "EMERGENCY")),
            "ADMISSION_LOCATION": door,
            "DISCHARGE_LOCATION": np.where(visits.recorded, "DEAD/EXPIRED", out),
            "INSURANCE": np.where(old, tables.pick(OLD, uniform[2]), tables.pick(YOUNG, uniform[2])),
            "LANGUAGE": tables.pick(LANGUAGES, personal[0]),
            "RELIGION": tables.pick(RELIGIONS, personal[1]),
            "MARITAL_STATUS": tables.pick(MARITAL, personal[2]),
            "ETHNICITY": np.array(source.groups.names)[patients.ethnicity[patient]],
            "EDREGTIME": tables.times(visits.admitted - waiting, where=door == "EMERGENCY ROOM ADMIT"),
            "EDOUTTIME": tables.times(visits.admitted + waiting // 4, where=door == "EMERGENCY ROOM ADMIT"),
            "DIAGNOSIS": source.diagnoses.table["title"].str.to_uppercase().gather(first),
            "HOSPITAL_EXPIRE_FLAG": visits.recorded.astype(np.int64),
            "HAS_CHARTEVENTS_DATA": (uniform[3] < 0.98).astype(np.int64),
        }
    )
    return tables.empty_as_null(frame.filter(pl.Series(part.seen)))


def _prescriptions(part: Part, detail: float) -> pl.DataFrame:
    """Drug orders; starts and ends are days, as in the source."""
    rows = content.drugs(part, detail=detail)
    table = part.process.source.drugs.table
    name = table["drug"].gather(rows.drug)
    return pl.DataFrame(
        {
            "SUBJECT_ID": tables.subjects(part, rows.visit),
            "HADM_ID": tables.admissions(part, rows.visit),
            "ICUSTAY_ID": pl.Series(tables.icu_stays(part, rows.visit)).set(pl.Series(~rows.in_icu), None),
            "STARTDATE": tables.times(rows.start // DAY * DAY),
            "ENDDATE": tables.times(rows.end // DAY * DAY),
            "DRUG_TYPE": table["type"].gather(rows.drug),
            "DRUG": name,
            "DRUG_NAME_POE": name,
            "DRUG_NAME_GENERIC": name,
            "FORMULARY_DRUG_CD": table["code"].gather(rows.drug),
            "GSN": pl.repeat(None, len(name), dtype=pl.String, eager=True),
            "NDC": pl.repeat("0", len(name), eager=True),
            "PROD_STRENGTH": table["strength"].gather(rows.drug),
            "DOSE_VAL_RX": table["dose"].gather(rows.drug),
            "DOSE_UNIT_RX": table["unit"].gather(rows.drug),
            "FORM_VAL_DISP": np.ones(len(name), dtype=np.int64),
            "FORM_UNIT_DISP": table["form"].gather(rows.drug),
            "ROUTE": table["route"].gather(rows.drug),
        }
    )
