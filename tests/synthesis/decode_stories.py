"""Two tiny sites, shaped like MIMIC-III and like PIC, whose raw tables are written here row by row."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from fairsynth.config import StudyPlan
from fairsynth.extraction import extract
from fairsynth.visits.cohort import Cohort, encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.layout import Vocabulary

CONFIGS = Path(__file__).resolve().parents[2] / "site_configs"
PATIENTS = 24  # enough for three splits, all with both labels somewhere


@dataclass(frozen=True, kw_only=True)
class Source:
    """What differs between the two sources."""

    name: str
    groups: tuple[str, ...]
    ethnicities: tuple[str, ...]  # one a group
    births: tuple[str, ...]
    codes: tuple[str, ...]
    drugs: tuple[str, ...]
    labs: tuple[tuple[str, str, str, str, str], ...]  # item, LOINC, unit, an ordinary and a very high value
    units: tuple[str, ...]


MIMIC = Source(
    name="mimic3",
    groups=("white", "black", "hispanic", "asian", "other"),
    ethnicities=("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC OR LATINO", "ASIAN", "OTHER"),
    births=("2050-03-01", "2030-03-01"),
    codes=("4280", "5849", "42731"),
    drugs=("Furosemide", "Heparin"),
    labs=(("50912", "2160-0", "mg/dL", "1.0", "9.0"), ("50931", "2345-7", "mg/dL", "100", "650")),
    units=("MICU", "CCU"),
)
PIC = Source(
    name="pic",
    groups=("han", "yi", "buyei", "miao", "tujia", "hui", "other"),
    ethnicities=("Han ethnic", "Yi ethnic", "Buyei ethnic", "Miao ethnic", "Tujia ethnic", "Hui ethnic", "Han ethnic"),
    births=("2096-03-01", "2099-11-20"),
    codes=("I50.900", "N17.900", "J18.900"),
    drugs=("Furosemide Injection", "Heparin Sodium"),
    labs=(("5032", "14682-9", "umol/L", "60", "800"), ("5223", "14749-6", "mmol/L", "5.5", "36")),
    units=("PICU", "General ICU"),
)


def make_plan(source: Source, *, task: str = "in_hospital_mortality") -> StudyPlan:
    """A plan that fits `source`; one patient is enough to disclose a code."""
    return StudyPlan.model_validate(
        {
            "name": "decode",
            "seed": 5,
            "roster": ["here"],
            "quorum": 1,
            "task": {"name": task},
            "split": {"train": 0.6, "validation": 0.2, "held_out": 0.2},
            "groups": {"names": source.groups, "reference": source.groups[:1]},
            "vocabulary": {"minimum_patients": 1},
            "objective": {},
            "generator": {},
            "training": {},
            "augmentation": {},
            "audit": {},
            "privacy": {},
        }
    )


def write_raw(folder: Path, source: Source) -> Path:
    """PATIENTS patients with one to three visits; every fourth dies in the last."""
    rows: dict[str, list[dict[str, object]]] = {"PATIENTS": [], "ADMISSIONS": [], "ICUSTAYS": [], "DIAGNOSES_ICD": []}
    rows |= {"PROCEDURES_ICD": [], "PRESCRIPTIONS": [], "LABEVENTS": []}
    code_column = "ICD9_CODE" if source.name == "mimic3" else "ICD10_CODE_CN"
    drug_column = "DRUG" if source.name == "mimic3" else "DRUG_NAME_EN"
    opening, closing = (
        ("ADMISSION_TYPE", "DISCHARGE_LOCATION")
        if source.name == "mimic3"
        else ("ADMISSION_DEPARTMENT", "DISCHARGE_DEPARTMENT")
    )
    for patient in range(1, PATIENTS + 1):
        birth = source.births[patient % 2]
        rows["PATIENTS"].append({"SUBJECT_ID": patient, "GENDER": "MF"[patient % 2], "DOB": f"{birth} 00:00:00"})
        visits = 1 + patient % 3
        for visit in range(visits):
            key = {"SUBJECT_ID": patient, "HADM_ID": 1000 + 10 * patient + visit}
            day = f"{2100 + visit}-0{1 + patient % 9}-1{patient % 10}"
            died = visit == visits - 1 and patient % 4 == 0
            rows["ADMISSIONS"].append(
                {
                    **key,
                    "ADMITTIME": f"{day} 08:00:00",
                    "DISCHTIME": f"{day[:-2]}25 10:00:00",
                    "DEATHTIME": f"{day[:-2]}25 10:00:00" if died else "",
                    "HOSPITAL_EXPIRE_FLAG": int(died),
                    opening: "EMERGENCY",
                    closing: "DEAD" if died else "HOME",
                    "ETHNICITY": source.ethnicities[patient % len(source.ethnicities)],
                }
            )
            rows["ICUSTAYS"].append({**key, "FIRST_CAREUNIT": source.units[visit % 2], "INTIME": f"{day} 09:00:00"})
            for code in source.codes[: 1 + patient % 3]:
                rows["DIAGNOSES_ICD"].append({**key, code_column: code})
            rows["PROCEDURES_ICD"].append({**key, "ICD9_CODE": "9671"})
            rows["PRESCRIPTIONS"].append(
                {**key, drug_column: source.drugs[patient % 2], "STARTDATE": f"{day} 12:00:00"}
            )
            for item, _, unit, ordinary, high in source.labs:
                for hour, value in ((10, high if patient % 2 else ordinary), (20, ordinary)):
                    lab = {"ITEMID": item, "CHARTTIME": f"{day} {hour}:00:00", "VALUENUM": value, "VALUEUOM": unit}
                    rows["LABEVENTS"].append({**key, **lab})
    diagnoses = [{code_column: code, "ICD10_CODE": code[:5], "TITLE": "t", "LONG_TITLE": "t"} for code in source.codes]
    labs = [{"ITEMID": item, "LABEL": "l", "LOINC_CODE": loinc} for item, loinc, *_ in source.labs]
    rows |= {"D_ICD_DIAGNOSES": diagnoses, "D_ICD_PROCEDURES": [{"ICD9_CODE": "9671"}], "D_LABITEMS": labs}
    _write_csv(folder, rows, source)
    return folder


def _write_csv(folder: Path, rows: dict[str, list[dict[str, object]]], source: Source) -> None:
    from fairsynth.extraction.rules import read_rules

    folder.mkdir(parents=True)
    for rule in read_rules(CONFIGS / source.name).files:
        with (folder / f"{rule.file}.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, rule.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows[rule.file])


def prepared(
    root: Path, *, data: Path, source: Source, plan: StudyPlan, vocabulary: Vocabulary | None = None
) -> Cohort:
    """What extraction and visits make of the tables at `data`, with their own vocabulary unless one is given."""
    config = CONFIGS / source.name
    extract(data, config=config, root=root)
    proposal = prepare(root, config=config, plan=plan)
    encode(root, vocabulary=vocabulary or shared_vocabulary(proposal.codes, plan=plan), plan=plan)
    return load_cohort(root)
