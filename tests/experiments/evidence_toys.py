"""A pool of patients who carry their own number, so that a test can say who went where.

Patient 37 has the codes of 37's binary digits in the first visit. Positives carry the first three `DX` codes more
often, whatever their group; the second group has fewer patients.
"""

from __future__ import annotations

import numpy as np

from fairsynth.config import (
    AuditConfig,
    GeneratorConfig,
    GroupsConfig,
    ObjectiveConfig,
    PrivacyConfig,
    SiteEntry,
    StudyConfig,
    TrainingConfig,
    VocabularyConfig,
)
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.drawing import draw
from fairsynth.experiments.evidence.pool import Pool
from fairsynth.schemas import SiteId
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

DIGITS = 9
DIAGNOSES = 8
VOCABULARY = Vocabulary(
    codes=(
        *(f"DX//CCS//{number}" for number in range(DIAGNOSES)),
        *(f"ID//{digit}//{value}" for digit in range(DIGITS) for value in (0, 1)),
    ),
    groups=("x", "y"),
    ages=("young", "old"),
    phenotypes=("shock",),
)
SIZES = {"a": 160, "b": 120, "c": 60}


def study(*, minimum_patients: int = 2, weight: float = 0.0, rounds: int = 2, predictors=("logistic_regression",)):
    return StudyConfig(
        schema="fairsynth.study/1",
        name="toy",
        seed=1,
        sites=tuple(SiteEntry(site=name, config="none", data="none") for name in SIZES),
        privacy=PrivacyConfig(agreement="toys"),
        groups=GroupsConfig(names=VOCABULARY.groups, reference=("x",)),
        vocabulary=VocabularyConfig(minimum_patients=minimum_patients),
        generator=GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=3),
        objective=ObjectiveConfig(**{"lambda": weight}),
        training=TrainingConfig(rounds=rounds, batch_size=16, learning_rate=0.005),
        audit=AuditConfig(predictors=predictors, minimum_positives=3),
    )


def pool(*, sizes=SIZES, config: StudyConfig | None = None) -> Pool:
    first = np.cumsum([0, *sizes.values()])
    sites = {
        SiteId(name): people(np.arange(start, start + number), seed=place)
        for place, ((name, number), start) in enumerate(zip(sizes.items(), first, strict=False))
    }
    return Pool(study=config or study(), vocabulary=VOCABULARY, sites=sites)


def people(numbers: np.ndarray, *, seed: int) -> Records:
    """Patients of these numbers, one or two visits each."""
    rng, layout = np.random.default_rng(seed), VOCABULARY.layout
    group = (rng.random(len(numbers)) < 0.3).astype(np.int64)
    label = (rng.random(len(numbers)) < 0.35).astype(np.int64)
    visits, context = [], []
    for number, of, dies in zip(numbers, group, label, strict=True):
        chance = np.where(np.arange(DIAGNOSES) < 3, 0.15 + 0.5 * dies, 0.2)
        own = [np.flatnonzero(rng.random(DIAGNOSES) < chance).tolist() for _ in range(rng.integers(1, 3))]
        own[0] += [DIAGNOSES + 2 * digit + int(number >> digit & 1) for digit in range(DIGITS)]
        visits.append(own)
        person = [layout.sexes.start + rng.integers(2), layout.ages.start + rng.integers(2)]
        context.append([layout.groups.start + of, *([layout.label] if dies else []), *person])
    flat = [visit for own in visits for visit in own]
    return Records(
        codes=np.concatenate([np.array(visit, dtype=np.int64) for visit in flat]),
        visit_offsets=np.cumsum([0, *map(len, flat)]),
        patient_offsets=np.cumsum([0, *map(len, visits)]),
        context=np.concatenate([np.array(tokens, dtype=np.int64) for tokens in context]),
        context_offsets=np.cumsum([0, *map(len, context)]),
        group=group,
        label=label,
    )


def numbers(records: Records, *, vocabulary: Vocabulary = VOCABULARY) -> list[int]:
    """The number of each patient, read from the codes of the first visit."""
    found = []
    for patient in range(len(records)):
        visit = records.patient_offsets[patient]
        own = records.codes[records.visit_offsets[visit] : records.visit_offsets[visit + 1]]
        digits = [vocabulary.codes[code].split("//")[1:] for code in own if vocabulary.codes[code].startswith("ID")]
        assert len(digits) == DIGITS
        found.append(sum(int(value) << int(digit) for digit, value in digits))
    return found


def bench(*, real: int = 90, seed: int = 3, config: StudyConfig | None = None) -> Bench:
    of = pool(config=config)
    return Bench(draw=draw(of, real=real, seed=seed), plan=of.plan, seed=seed)
