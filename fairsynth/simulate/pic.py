"""Tables as PIC v1.1.0 ships them: one dotted Chinese ICD-10 code an admission, SI units, no procedures.

In:  a `Part`.   Out: a frame for each table, in the source's column order but for ROW_ID.
Never: file access.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from fairsynth.config import SimulationConfig
from fairsynth.simulate import content, tables
from fairsynth.simulate.content import CodeRows
from fairsynth.simulate.population import DAY
from fairsynth.simulate.source import Source
from fairsynth.simulate.truth import Part, seen_patients

COLUMNS: dict[str, tuple[str, ...]] = {
    "PATIENTS": ("ROW_ID", "SUBJECT_ID", "GENDER", "DOB", "DOD", "EXPIRE_FLAG"),
    "ADMISSIONS": (
        *("ROW_ID", "SUBJECT_ID", "HADM_ID", "ADMITTIME", "DISCHTIME", "DEATHTIME", "ADMISSION_DEPARTMENT"),
        *("DISCHARGE_DEPARTMENT", "INSURANCE", "LANGUAGE", "RELIGION", "MARITAL_STATUS", "ETHNICITY", "EDREGTIME"),
        *("EDOUTTIME", "DIAGNOSIS", "ICD10_CODE_CN", "HOSPITAL_EXPIRE_FLAG", "HAS_CHARTEVENTS_DATA"),
    ),
    "ICUSTAYS": (
        *("ROW_ID", "SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "FIRST_CAREUNIT", "LAST_CAREUNIT", "FIRST_WARDID"),
        *("LAST_WARDID", "INTIME", "OUTTIME", "LOS"),
    ),
    "DIAGNOSES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD10_CODE_CN"),
    "D_ICD_DIAGNOSES": ("ROW_ID", "ICD10_CODE_CN", "ICD10_CODE", "TITLE_CN", "TITLE"),
    "PRESCRIPTIONS": (
        *("ROW_ID", "SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "STARTDATE", "ENDDATE", "DRUG_NAME_CN", "DRUG_NAME_EN"),
        *("PROD_STRENGTH", "DRUG_NAME_GENERIC", "DOSE_VAL_RX", "DOSE_UNIT_RX", "DRUG_FORM"),
    ),
    "LABEVENTS": (
        *("ROW_ID", "SUBJECT_ID", "HADM_ID", "ITEMID", "CHARTTIME", "VALUE", "VALUENUM", "VALUEUOM", "FLAG"),
    ),
    "D_LABITEMS": ("ROW_ID", "ITEMID", "LABEL_CN", "LABEL", "FLUID", "CATEGORY", "LOINC_CODE"),
}

WARDS = {"CICU": 1, "General ICU": 2, "NICU": 3, "PICU": 4, "SICU": 5}
INSURANCE = {"Self pay": 0.62, "Medical insurance": 0.38}


def chunk(part: Part, config: SimulationConfig) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows of one chunk of patients, table by table."""
    diagnoses = content.diagnoses(part, knobs=config.bias)
    codes = part.process.source.diagnoses.table["code"]
    yield "PATIENTS", _patients(part)
    yield "ADMISSIONS", _admissions(part, diagnoses)
    yield "ICUSTAYS", tables.icu_table(part, wards=WARDS)
    yield "DIAGNOSES_ICD", tables.code_table(part, diagnoses, codes, column="ICD10_CODE_CN")
    yield "PRESCRIPTIONS", _prescriptions(part, config.detail)
    labs = content.labs(part, detail=config.detail, knobs=config.bias)
    yield "LABEVENTS", tables.lab_table(part, labs, low="l", high="h", normal="z")


def dictionaries(source: Source) -> dict[str, pl.DataFrame]:
    """The dictionary tables: the codes and items that the simulation uses."""
    titles = {"ICD10_CODE_CN": "code", "ICD10_CODE": "who", "TITLE_CN": "title_cn", "TITLE": "title"}
    labels = {"ITEMID": "itemid", "LABEL_CN": "label_cn", "LABEL": "label", "FLUID": "fluid", "CATEGORY": "category"}
    return {
        "D_ICD_DIAGNOSES": tables.renamed(source.diagnoses.table, titles),
        "D_LABITEMS": tables.renamed(source.labs.table, {**labels, "LOINC_CODE": "loinc"}),
    }


def _patients(part: Part) -> pl.DataFrame:
    """One row a patient who is in the tables; EXPIRE_FLAG means died in hospital."""
    patients = part.planned.patients
    row = np.flatnonzero(seen_patients(part))
    death = tables.death_minutes(part)[row]
    return pl.DataFrame(
        {
            "SUBJECT_ID": tables.FIRST_SUBJECT + patients.number[row],
            "GENDER": np.where(patients.female[row], "F", "M"),
            "DOB": tables.times((patients.first // DAY - patients.age_days)[row] * DAY),
            "DOD": tables.times(death, where=death >= 0),
            "EXPIRE_FLAG": (death >= 0).astype(np.int64),
        }
    )


def _admissions(part: Part, diagnoses: CodeRows) -> pl.DataFrame:
    source, patients, visits = part.process.source, part.planned.patients, part.planned.visits
    rng = part.streams("admission details")
    unit = np.array(source.units.names)[visits.unit]
    discharged = visits.admitted + visits.stay
    table = source.diagnoses.table
    coded = np.full(len(unit), table.height)
    coded[diagnoses.visit] = diagnoses.code
    nothing = pl.repeat(None, len(unit), dtype=pl.String, eager=True)
    frame = pl.DataFrame(
        {
            "SUBJECT_ID": tables.FIRST_SUBJECT + patients.number[visits.patient],
            "HADM_ID": tables.FIRST_ADMISSION + visits.number,
            "ADMITTIME": tables.times(visits.admitted),
            "DISCHTIME": tables.times(discharged),
            "DEATHTIME": tables.times(discharged, where=visits.recorded),
            "ADMISSION_DEPARTMENT": unit,
            "DISCHARGE_DEPARTMENT": unit,
            "INSURANCE": tables.pick(INSURANCE, rng.random(len(unit))),
            "LANGUAGE": nothing,
            "RELIGION": nothing,
            "MARITAL_STATUS": nothing,
            "ETHNICITY": np.array(source.groups.names)[patients.ethnicity[visits.patient]],
            "EDREGTIME": nothing,
            "EDOUTTIME": nothing,
            "DIAGNOSIS": table["title"].gather(content.first_diagnosis(part)),
            "ICD10_CODE_CN": table["code"].extend_constant(None, 1).gather(coded),
            "HOSPITAL_EXPIRE_FLAG": visits.recorded.astype(np.int64),
            "HAS_CHARTEVENTS_DATA": (rng.random(len(unit)) < 0.797).astype(np.int64),
        }
    )
    return frame.filter(pl.Series(part.seen))


def _prescriptions(part: Part, detail: float) -> pl.DataFrame:
    rows = content.drugs(part, detail=detail)
    table = part.process.source.drugs.table
    return pl.DataFrame(
        {
            "SUBJECT_ID": tables.subjects(part, rows.visit),
            "HADM_ID": tables.admissions(part, rows.visit),
            "ICUSTAY_ID": pl.Series(tables.icu_stays(part, rows.visit)).set(pl.Series(~rows.in_icu), None),
            "STARTDATE": tables.times(rows.start),
            "ENDDATE": tables.times(rows.end),
            "DRUG_NAME_CN": table["drug_cn"].gather(rows.drug),
            "DRUG_NAME_EN": table["drug"].gather(rows.drug),
            "PROD_STRENGTH": table["strength"].gather(rows.drug),
            "DRUG_NAME_GENERIC": table["generic"].gather(rows.drug),
            "DOSE_VAL_RX": table["dose"].gather(rows.drug),
            "DOSE_UNIT_RX": table["unit"].gather(rows.drug),
            "DRUG_FORM": table["form"].gather(rows.drug),
        }
    )
