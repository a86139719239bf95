"""Write the tables of a hospital that does not exist: `python docs/new-hospital/made_up_hospital.py FOLDER`.

Five CSV files with text identifiers, day-first dates and words of the hospital's own. The people in them are random.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

PATIENTS = 1_500
ORIGINS = ["Northerner"] * 120 + ["Southerner"] * 50 + ["Islander"] * 28 + ["Traveller"]
ILLNESSES = {  # ICD-10 code -> chance of having it, and what it adds to the chance of dying
    "I50.1": (0.25, 0.10),
    "J18.9": (0.30, 0.05),
    "A41.9": (0.12, 0.25),
    "N17.9": (0.15, 0.10),
    "E11.9": (0.30, 0.0),
    "I10": (0.45, 0.0),
    "C34.9": (0.06, 0.20),
    "F05": (0.10, 0.05),
}
TESTS = {  # test -> unit, mean and spread of the healthy, factor for the dying
    "Creatinine": ("umol/L", 85, 25, 1.4),
    "Glucose": ("mmol/L", 6.5, 1.5, 1.1),
    "Potassium": ("mmol/L", 4.2, 0.4, 1.05),
    "Haemoglobin": ("g/L", 135, 15, 0.9),
    "Lactate": ("mmol/L", 1.3, 0.5, 1.5),
    "Frothiness": ("bubbles", 12, 4, 1.0),
}
DRUGS = (
    "Furosemide 40 mg tablet",
    "Ceftriaxone 1 g injection",
    "Metformin 500 mg",
    "Heparin 5,000 units",
    "Paracetamol",
)
WARDS = ("Red Ward", "Blue Ward", "High Care")


def main(folder: Path) -> None:
    """Write all five tables."""
    rng = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, list[tuple[str, ...]]] = {name: [] for name in HEADERS}
    for number in range(PATIENTS):
        _patient(number, rng, tables)
    for name, header in HEADERS.items():
        _write(folder / f"{name}.csv", header, tables[name])


HEADERS = {
    "persons": ("person_no", "sex", "born_on", "ethnic_origin"),
    "stays": ("stay_ref", "person_no", "arrived_at", "left_at", "how_admitted", "ward", "went_to"),
    "dx": ("stay_ref", "position", "icd10"),
    "results": ("stay_ref", "test", "taken_at", "result", "unit"),
    "meds": ("stay_ref", "medicine", "given_from"),
}


def _patient(number: int, rng: random.Random, tables: dict[str, list[tuple[str, ...]]]) -> None:
    """One person and one or two stays, of which the last may end in death."""
    person = f"P-{number * 37 % 100_000:05d}"
    born = datetime(1930, 1, 1) + timedelta(days=rng.randrange(25_000))
    tables["persons"].append((person, rng.choice(("female", "male")), _day(born), rng.choice(ORIGINS)))
    arrived = datetime(2019, 1, 1, 8) + timedelta(hours=rng.randrange(24 * 900))
    for stay in range(rng.choice((1, 1, 1, 2))):
        codes = [code for code, (chance, _) in ILLNESSES.items() if rng.random() < chance] or ["I10"]
        dies = rng.random() < 0.02 + sum(ILLNESSES[code][1] for code in codes)
        left = arrived + timedelta(hours=rng.randrange(30, 300))
        _stay(f"S{number:04d}/{stay + 1}", person, (arrived, left), codes, dies=dies, rng=rng, tables=tables)
        if dies:
            return
        arrived = left + timedelta(days=rng.randrange(20, 300))


def _stay(
    ref: str,
    person: str,
    when: tuple[datetime, datetime],
    codes: list[str],
    *,
    dies: bool,
    rng: random.Random,
    tables: dict[str, list[tuple[str, ...]]],
) -> None:
    """One stay with its diagnoses, results and drugs."""
    arrived, left = when
    went = "Deceased" if dies else rng.choice(("Home", "Home", "Nursing home", "Other hospital"))
    how = rng.choice(("Emergency", "Emergency", "Planned"))
    tables["stays"].append((ref, person, _moment(arrived), _moment(left), how, rng.choice(WARDS), went))
    coded = [*codes, "X59.9"] if dies else codes  # this hospital's mortuary adds a code of its own
    tables["dx"] += [(ref, str(position), code) for position, code in enumerate(coded, start=1)]
    for day in range(0, (left - arrived).days + 1):
        for test, (unit, mean, spread, factor) in TESTS.items():
            value = rng.gauss(mean * (factor if dies else 1), spread)
            taken = min(arrived + timedelta(days=day, hours=rng.randrange(1, 9)), left)
            tables["results"].append((ref, test, _moment(taken), f"{max(value, mean / 10):.1f}", unit))
    for drug in rng.sample(DRUGS, k=3):
        tables["meds"].append((ref, drug, _moment(arrived + timedelta(hours=rng.randrange(1, 30)))))


def _day(time: datetime) -> str:
    return time.strftime("%d/%m/%Y")


def _moment(time: datetime) -> str:
    return time.strftime("%d/%m/%Y %H:%M")


def _write(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
