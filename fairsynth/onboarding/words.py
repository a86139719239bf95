"""The words by which columns, tables and cells are recognised.

In:  nothing.   Out: expressions over plain names (`plain`), and sets of cells in upper case.
Never: data of a hospital.
"""

from __future__ import annotations

import re

_ID = r"(?:_?(?:id|no|nr|num|number|key|nbr|ref|code|uid|identifier|sn|pseudonym))"
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

ROW_NUMBER = re.compile(
    r"^(row|line|index|seq|serial|rec|record)_?(id|no|nr|num|number)?$|^(position|rank|order|unnamed.*)$"
)
COUNT = re.compile(r"^(num|number|count|total|n)_")
SUBJECT = re.compile(
    rf"(^|_)(subject|patient|person|pat|pt|subj|individual|member){_ID}?$|^(mrn|pid|uniquepid|(patient|person|subject|pat)(id|no|nr))$"
)
VISIT = re.compile(
    rf"(^|_)(hadm|adm|admission|visit|visit_occurrence|encounter|enc|stay|episode|case|spell|hospitali[sz]ation){_ID}?$"
    r"|^(hadm|visit|encounter|stay|case|enc|patientunitstay)(id|no|nr)$"
)
START = re.compile(
    r"admit|admis|(^|_)adm(_|$)|start|begin|(^|_)from|arriv|entry|entered|(^|_)in_?time|opened|checked_in"
)
END = re.compile(
    r"disch|(^|_)end|until|(^|_)out_?time|(^|_)left|leave|depart|exit|(^|_)to$|closed|released|checked_out"
)
TIME = re.compile(
    r"time|date|(^|_)(dt|at|on|when)$|taken|given|drawn|collected|chart|start|begin|from|recorded|measured"
)
RESULT_TIME = re.compile(r"taken|drawn|collected|chart|sampl|measured|observ|(^|_)at$")
BIRTH = re.compile(r"birth|(^|_)dob$|(^|_)born")
BIRTH_YEAR = re.compile(r"birth_?year|year_?(of_)?birth|(^|_)yob$")
AGE = re.compile(r"(^|_)age(_|$)")
DEATH = re.compile(r"death|(^|_)dod|deceas|(^|_)die[sd]?(_|$)|expire|(^|_)dead|mortal")
SEX = re.compile(r"(^|_)(sex|gender|geschlecht|sexe|sexo)(_|$)")
ETHNICITY = re.compile(r"ethnic|(^|_)race(_|$)|nationality|ancestry|(^|_)heritage")
DIAGNOSIS = re.compile(r"diag|(^|_)icd|(^|_)dx(_|\d|$)|condition|problem")
PROCEDURE = re.compile(r"proc|(^|_)cpt(_|$)|(^|_)px(_|\d|$)|operat|surg|(^|_)ops(_|$)|interven")
CODE = re.compile(r"code|icd|cpt|(^|_)ops(_|$)|proc|diag|(^|_)dx(_|$)|concept")
VERSION = re.compile(r"version|(^|_)(system|vocabulary|codesystem|coding)(_|$)")
DRUG = re.compile(r"drug|medic|(^|_)meds?(_|$)|substance|agent|prescri|(^|_)rx(_|$)|pharm|ingredient|generic")
ITEM = re.compile(r"(^|_)(test|item|itemid|analyte|param|parameter|component|loinc|assay|observation|measurement|lab)")
CLEAR_ITEM = re.compile(r"(^|_)(test|analyte|param|parameter|component|loinc|assay|observation|measurement|lab)")
LABORATORY = re.compile(r"lab|result|test|analy|chem|measure|observ|vital")
VALUE = re.compile(r"value|result|(^|_)(num|reading|val|level|amount)(_|$)|valuenum")
VALUE_UNIT = re.compile(r"unit|uom")
WARD = re.compile(r"ward|depart|care_?unit|(^|_)unit|service")
TYPE = re.compile(r"type|class|(^|_)kind|urgency|how_|mode|priority|source|route")
DISPOSITION = re.compile(r"disposition|disch.*(loc|to|stat|type|dest)|destination|went_to|outcome|(^|_)to_")
UNITS_TABLE = re.compile(r"icu|ward|unit|transfer|movement|bed")
LABEL = re.compile(r"label|name|title|desc|text|meaning|term")
LOINC_COLUMN = re.compile(r"loinc")

YES = frozenset({"1", "Y", "YES", "T", "TRUE", "J", "JA", "OUI", "SI", "S", "DIED", "DEAD", "DECEASED", "EXPIRED"})
NO = frozenset({"0", "N", "NO", "F", "FALSE", "NEIN", "NON", "ALIVE", "SURVIVED", ""})
FEMALE = frozenset({"F", "FEMALE", "W", "WOMAN", "WEIBLICH", "FEMME", "FEMENINO", "女"})
MALE = frozenset({"M", "MALE", "MAN", "MÄNNLICH", "MAENNLICH", "HOMME", "MASCULINO", "男"})
DEAD = re.compile(r"DEAD|DIED|DEATH|DECEAS|EXPIRE|MORT|VERSTORB|GESTORB|DÉCÉD|FALLEC|死")
PLAIN_DEAD = frozenset({"DEAD", "DIED", "DEATH", "DECEASED", "EXPIRED", "DEAD/EXPIRED", "DIED IN HOSPITAL"})
UNKNOWN = re.compile(r"^(\?|UNK.*|UNKNOWN.*|NOT (SPECIFIED|KNOWN|STATED).*|.*DECLINED.*|UNABLE.*|MISSING|NA|N/A|NONE)$")

# Local names of laboratory tests -> the name in the shared table (visits/data/labs.yaml), beside that name itself.
LABORATORY_NAMES = {
    **dict.fromkeys(("hemoglobin", "hgb", "hb"), "haemoglobin"),
    **dict.fromkeys(("hematocrit", "hct"), "haematocrit"),
    **dict.fromkeys(("wbc", "leukocytes", "leucocytes", "white blood cells", "white blood cell count"), "white cells"),
    **dict.fromkeys(("platelet count", "plt", "thrombocytes"), "platelets"),
    **dict.fromkeys(("bun", "urea"), "urea nitrogen"),
    **dict.fromkeys(("na", "natrium"), "sodium"),
    **dict.fromkeys(("k", "kalium"), "potassium"),
    **dict.fromkeys(("crea", "creat", "kreatinin", "serum creatinine"), "creatinine"),
    **dict.fromkeys(("glu", "blood glucose", "glukose"), "glucose"),
    **dict.fromkeys(("bilirubin total", "total bilirubin"), "bilirubin"),
    **dict.fromkeys(("alt", "gpt", "sgpt"), "alanine aminotransferase"),
    **dict.fromkeys(("ast", "got", "sgot"), "aspartate aminotransferase"),
    **dict.fromkeys(("crp", "c reactive protein"), "c-reactive protein"),
    **dict.fromkeys(("lactic acid", "lac", "laktat"), "lactate"),
    **dict.fromkeys(("inr", "inr(pt)"), "international normalised ratio"),
    **dict.fromkeys(("ptt", "aptt"), "partial thromboplastin time"),
    **dict.fromkeys(("cl", "chlorid"), "chloride"),
    **dict.fromkeys(("hco3", "co2 total"), "bicarbonate"),
}


def plain(name: str) -> str:
    """A name in lower case with underscores: `PatientID`, `patient id` and `PATIENT_ID` are `patient_id`."""
    return re.sub(r"[^0-9a-z]+", "_", _HUMP.sub("_", name).lower()).strip("_")
