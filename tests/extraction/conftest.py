"""Three patients, four visits, in MIMIC-III's format; every value is made up."""

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TABLES = {
    "PATIENTS": """\
SUBJECT_ID,GENDER,DOB,DOD
101,F,2100-03-05 00:00:00,
102,M,2090-07-01 00:00:00,2160-02-03 00:00:00
103,F,1860-02-01 00:00:00,
""",
    "ADMISSIONS": """\
SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,DISCHARGE_LOCATION,ETHNICITY,HOSPITAL_EXPIRE_FLAG
101,7001,2150-01-01 08:00:00,2150-01-04 12:00:00,,EMERGENCY,HOME,WHITE,0
101,7002,2151-06-10 20:15:00,2151-06-12 09:00:00,,ELECTIVE,HOME,WHITE,0
102,7003,2160-02-01 03:30:00,2160-02-03 23:45:00,2160-02-03 22:10:00,EMERGENCY,DEAD/EXPIRED,ASIAN,1
103,7004,2160-05-01 10:00:00,2160-05-09 11:00:00,,URGENT,SNF,OTHER,0
""",
    "ICUSTAYS": """\
SUBJECT_ID,HADM_ID,FIRST_CAREUNIT,INTIME
101,7001,MICU,2150-01-01 09:00:00
103,7004,CSRU,2160-05-01 10:05:00
""",
    "DIAGNOSES_ICD": """\
SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE
101,7001,1,0389
101,7002,1,4280
102,7003,1,41071
103,7004,1,V4581
""",
    "PROCEDURES_ICD": "SUBJECT_ID,HADM_ID,ICD9_CODE\n103,7004,3961\n",
    "PRESCRIPTIONS": "SUBJECT_ID,HADM_ID,STARTDATE,DRUG\n101,7001,2150-01-01 00:00:00,Heparin\n",
    "LABEVENTS": """\
SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUENUM,VALUEUOM
101,7001,50912,2150-01-01 09:00:00,1.4,mg/dL
101,,50912,2150-01-02 09:00:00,1.2,mg/dL
101,,50912,2150-12-31 09:00:00,0.9,mg/dL
102,7003,50931,2160-02-01 04:00:00,240,mg/dL
""",
    "D_ICD_DIAGNOSES": 'ICD9_CODE,LONG_TITLE\n0389,"Septicemia, unspecified"\n4280,Heart failure\n',
    "D_ICD_PROCEDURES": "ICD9_CODE,LONG_TITLE\n3961,Extracorporeal circulation\n",
    "D_LABITEMS": "ITEMID,LABEL,LOINC_CODE\n50912,Creatinine,2160-0\n50931,Glucose,2345-7\n",
}

Site = Callable[..., Path]


@pytest.fixture
def mimic3() -> Path:
    """The site configuration for MIMIC-III."""
    return ROOT / "site_configs" / "mimic3"


@pytest.fixture
def pic() -> Path:
    """The site configuration for PIC."""
    return ROOT / "site_configs" / "pic"


@pytest.fixture
def make_data(tmp_path: Path) -> Site:
    """A function that writes the tiny tables, some replaced or left out (None), and gives the folder."""

    def make(folder: str = "data", **changed: str | bytes | None) -> Path:
        data = tmp_path / folder
        data.mkdir()
        for name, content in (TABLES | changed).items():
            if content is not None:
                (data / f"{name}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        return data

    return make


@pytest.fixture
def tiny_tables() -> dict[str, str]:
    """The tables by name, as text."""
    return dict(TABLES)
