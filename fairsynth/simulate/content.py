"""What is written down in a visit: codes, drugs and laboratory values, given conditions, class and severity.

In:  a `Part` (all planned visits).   Out: rows as index arrays: which visit, which code or item, when, what value.
Never: column names of a source; files. Given conditions, class and severity, nothing here depends on the outcome, so
every association of a code or value with death goes through them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from fairsynth.config import BiasConfig
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.simulate import bias
from fairsynth.simulate.calibrate import draw_weight
from fairsynth.simulate.population import DAY
from fairsynth.simulate.source import BoolArray, Codes, Labs
from fairsynth.simulate.truth import Part

MOST_CODES = 39  # of an admission
LAB_PATIENT, LAB_VISIT, LAB_NOISE = 0.45, 0.3, 0.55  # standard deviations of a value's three random parts
OUTSIDE_DAYS = 180.0  # lab rows without admission lie within so many days before one
OUTSIDE_SEVERITY = 0.4  # share of a visit's effects that they show


@dataclass(frozen=True, kw_only=True, eq=False)
class CodeRows:
    """Diagnosis or procedure rows, sorted by visit and place."""

    visit: IntArray  # row of `Part.planned.visits`
    code: IntArray
    place: IntArray  # from 1 in each visit


@dataclass(frozen=True, kw_only=True, eq=False)
class DrugRows:
    """Prescriptions, sorted by visit."""

    visit: IntArray
    drug: IntArray
    start: IntArray  # minutes since 1970-01-01
    end: IntArray
    in_icu: BoolArray


@dataclass(frozen=True, kw_only=True, eq=False)
class LabRows:
    """Laboratory values, sorted by visit and time."""

    visit: IntArray
    item: IntArray
    minute: IntArray  # since 1970-01-01
    value: FloatArray  # rounded to the item's decimals
    outside: BoolArray  # belongs to no admission


def first_diagnosis(part: Part) -> IntArray:
    """(V,) the reason for admission, before any code is lost."""
    return np.asarray(_given_diagnoses(part).argmax(axis=1))


def diagnoses(part: Part, *, knobs: BiasConfig) -> CodeRows:
    """The diagnosis codes of the visits that are in the tables."""
    keys = _given_diagnoses(part)
    covered = part.streams("diagnosis coverage").random(len(keys)) < part.process.source.settings.diagnosis_coverage
    keys = np.where(covered[:, None], keys, -np.inf)
    return _code_rows(part, keys, codes=part.process.source.diagnoses, name="diagnosis documentation", knobs=knobs)


def procedures(part: Part, *, knobs: BiasConfig) -> CodeRows:
    """The procedure codes of the visits that are in the tables."""
    codes = part.process.source.procedures
    if codes is None:
        raise ValueError("this source has no procedures")
    keys = _present(part, codes, part.process.procedures, name="procedures")
    return _code_rows(part, keys, codes=codes, name="procedure documentation", knobs=knobs)


def drugs(part: Part, *, detail: float) -> DrugRows:
    """The prescriptions of the visits that are in the tables; `detail` thins repeats, never a drug's first order."""
    source, visits, rng = part.process.source, part.planned.visits, part.streams("drug rows")
    codes = source.drugs
    probability = expit(part.planned.features @ codes.weights + part.process.drugs)
    covered = rng.random(len(visits.stay)) < source.settings.drug_coverage
    given = (rng.random(probability.shape) < probability) & covered[:, None]
    wanted = source.settings.drug_rows / part.process.drugs_given  # rows of one drug in one visit
    number = given * (1 + rng.poisson(max(detail * wanted - 1, 0.0), size=given.shape))
    visit, drug = np.nonzero(number)
    number = number[visit, drug]
    visit, drug = np.repeat(visit, number), np.repeat(drug, number)
    first = np.concatenate([[True], (visit[1:] != visit[:-1]) | (drug[1:] != drug[:-1])])
    when = np.where(first, rng.beta(1.0, 4.0, len(visit)), rng.random(len(visit)))
    offset = (when * visits.stay[visit]).astype(np.int64)
    length = np.minimum(rng.geometric(0.35, len(visit)) * DAY, visits.stay[visit] - offset)
    keep = part.seen[visit]
    start = visits.admitted[visit] + offset
    return DrugRows(
        visit=visit[keep],
        drug=drug[keep],
        start=start[keep],
        end=(start + length)[keep],
        in_icu=(offset < visits.icu[visit])[keep],
    )


def labs(part: Part, *, detail: float, knobs: BiasConfig) -> LabRows:
    """The laboratory rows of the visits that are in the tables; `detail` thins draws, never a visit's first."""
    source, visits, rng = part.process.source, part.planned.visits, part.streams("lab rows")
    visit, minute, outside = _draws(part, detail, rng)
    ordered = _ordered(source.labs, len(visit), rng)
    draw, item = np.nonzero(ordered)
    effect = visits.severity[:, None] * source.labs.severity + part.planned.features @ source.labs.effects
    shown = np.where(outside, OUTSIDE_SEVERITY, 1.0)
    patient = LAB_PATIENT * rng.standard_normal((len(part.planned.patients.number), len(source.labs.share)))
    own = LAB_VISIT * rng.standard_normal(effect.shape)
    z = shown[draw] * (effect + own)[visit[draw], item] + patient[visits.patient[visit[draw]], item]
    z += LAB_NOISE * rng.standard_normal(len(draw))
    keep = part.seen[visit[draw]]
    draw, item, z = draw[keep], item[keep], z[keep]
    value = _values(source.labs, item, z)
    kept = np.arange(len(draw))
    if knobs.undocumented == "danger":
        hidden = part.planned.visit_is_biased[visit[draw]] & bias.abnormal(source.labs, item, value)
        rng = part.streams("lab documentation")
        kept = np.flatnonzero(bias.documented(np.ones_like(hidden), hidden, chance=knobs.under_documentation, rng=rng))
    return LabRows(
        visit=visit[draw][kept],
        item=item[kept],
        minute=minute[draw][kept],
        value=value[kept],
        outside=outside[draw][kept],
    )


def _given_diagnoses(part: Part) -> FloatArray:
    """(V, M) order of preference of the diagnoses a visit has; -inf for the others."""
    source, process = part.process.source, part.process
    if not source.settings.one_diagnosis:
        return _present(part, source.diagnoses, process.diagnoses, name="diagnoses")
    logits = part.planned.features @ source.diagnoses.weights + process.diagnoses
    keys = logits + part.streams("diagnoses").gumbel(size=logits.shape)
    return np.where(keys == keys.max(axis=1, keepdims=True), keys, -np.inf)


def _present(part: Part, codes: Codes, intercepts: FloatArray, *, name: str) -> FloatArray:
    """(V, M) order of preference of the codes a visit has, at least one of them if diagnoses; -inf for the others."""
    rng = part.streams(name)
    probability = expit(part.planned.features @ codes.weights + intercepts)
    uniform = rng.random(probability.shape)
    present = uniform < probability
    if name == "diagnoses":
        likeliest = probability.argmax(axis=1)
        present[np.arange(len(present)), likeliest] |= ~present.any(axis=1)
    return np.where(present, codes.principal + rng.gumbel(size=present.shape), -np.inf)


def _code_rows(part: Part, keys: FloatArray, *, codes: Codes, name: str, knobs: BiasConfig) -> CodeRows:
    """Rows of the codes with finite keys that were documented, in order of falling key."""
    may_be_lost = part.planned.visit_is_biased[:, None]
    if knobs.undocumented == "danger":
        may_be_lost = may_be_lost & bias.dangerous(part.process.source, codes)
    given = bias.documented(np.isfinite(keys), may_be_lost, chance=knobs.under_documentation, rng=part.streams(name))
    given &= part.seen[:, None]
    ranked = np.argsort(np.where(given, -keys, np.inf), axis=1, kind="stable")[:, :MOST_CODES]
    visit, place = np.nonzero(np.take_along_axis(given, ranked, axis=1))
    return CodeRows(visit=visit, code=ranked[visit, place], place=place + 1)


def _draws(part: Part, detail: float, rng: np.random.Generator) -> tuple[IntArray, IntArray, BoolArray]:
    """Blood draws of all planned visits, sorted by visit and time: visit, minute, whether outside any admission."""
    source, visits = part.process.source, part.planned.visits
    settings = source.settings
    mean = settings.lab_rows / source.labs.share.sum() * draw_weight(visits.severity, visits.stay) / part.process.draws
    covered = rng.random(len(mean)) < settings.lab_coverage
    inside = covered * (1 + rng.poisson(np.maximum(detail * mean - 1, 0.0)))
    before = rng.poisson(inside * settings.outside_labs / (1 - settings.outside_labs))
    number = inside + before
    visit = np.repeat(np.arange(len(mean)), number)
    rank = np.arange(len(visit)) - np.repeat(np.cumsum(number) - number, number)
    outside = rank >= inside[visit]
    first_hours = rng.integers(0, 6 * 60, len(visit))
    within = np.where(
        rank == 0, np.minimum(first_hours, visits.stay[visit]), rng.random(len(visit)) * visits.stay[visit]
    )
    reach = np.where(visits.gap < 0, OUTSIDE_DAYS * DAY, np.minimum(visits.gap, OUTSIDE_DAYS * DAY))
    earlier = -(0.05 + 0.9 * rng.random(len(visit))) * reach[visit]
    minute = visits.admitted[visit] + np.where(outside, earlier, within).astype(np.int64)
    order = np.lexsort((minute, visit))
    return visit[order], minute[order], outside[order]


def _ordered(labs: Labs, number: int, rng: np.random.Generator) -> BoolArray:
    """(draws, I) which items each draw measures: a panel is ordered whole, with the odd item left out."""
    most = np.zeros(labs.panel.max() + 1)
    np.maximum.at(most, labs.panel, labs.share)
    panels = rng.random((number, len(most))) < most
    return np.asarray(panels[:, labs.panel] & (rng.random((number, len(labs.share))) < labs.share / most[labs.panel]))


def _values(labs: Labs, item: IntArray, z: FloatArray) -> FloatArray:
    """Values on the items' own scales, clipped to what is possible and rounded."""
    logarithmic = labs.logarithmic[item]
    step = labs.spread[item] * z
    value = np.where(logarithmic, labs.median[item] * np.exp(np.where(logarithmic, step, 0)), labs.median[item] + step)
    value = np.clip(value, labs.possible[item, 0], labs.possible[item, 1])
    scale = 10.0 ** labs.decimals[item]
    return np.asarray(np.round(value * scale) / scale)
