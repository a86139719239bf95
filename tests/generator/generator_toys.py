"""Small vocabularies, records with structure worth learning, and plans for the generator's tests."""

import itertools

import numpy as np

from fairsynth.config import GeneratorConfig, GroupsConfig, ObjectiveConfig, SiteEntry, StudyConfig, TrainingConfig
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Study, Totals
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

SMALL = GeneratorConfig(embedding=16, layers=2, heads=2, maximum_visits=6)
TINY = GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=2)


def vocabulary(*, codes, groups, ages=3, phenotypes=2):
    return Vocabulary(
        codes=tuple(f"DX//{i:03}" for i in range(codes)),
        groups=tuple(f"g{i}" for i in range(groups)),
        ages=tuple(f"age-{i}" for i in range(ages)),
        phenotypes=tuple(f"phenotype-{i}" for i in range(phenotypes)),
    )


SMALL_VOCABULARY = vocabulary(codes=20, groups=3)
TINY_VOCABULARY = vocabulary(codes=3, groups=2, ages=2, phenotypes=1)


def records_of(patients, *, words):
    """Records from (group, label, sex, age, phenotypes, visits) per patient, with visits as lists of code ids."""
    layout = words.layout
    context, visits = [], []
    for group, label, sex, age, phenotypes, own in patients:
        tokens = [layout.groups.start + group, *([layout.label] if label else [])]
        tokens += [
            layout.sexes.start + sex,
            layout.ages.start + age,
            *(layout.phenotypes.start + p for p in phenotypes),
        ]
        context.append(tokens)
        visits.append([sorted(visit) for visit in own])
    flat = [visit for own in visits for visit in own]
    return Records(
        codes=ints(itertools.chain.from_iterable(flat)),
        visit_offsets=offsets(flat),
        patient_offsets=offsets(visits),
        context=ints(itertools.chain.from_iterable(context)),
        context_offsets=offsets(context),
        group=ints(patient[0] for patient in patients),
        label=ints(patient[1] for patient in patients),
    )


def ints(values):
    return np.fromiter(values, dtype=np.int64)


def offsets(rows):
    return np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)


def hospital(number, *, seed, words=SMALL_VOCABULARY, shares=(0.6, 0.3, 0.1), maximum_visits=6):
    """Patients of hidden classes that last over visits; codes rarer in the later groups; sicker classes die more."""
    rng = np.random.default_rng(seed)
    rates = np.random.default_rng(0).choice([0.02, 0.1, 0.8], p=[0.6, 0.2, 0.2], size=(4, len(words.codes)))
    patients = []
    for _ in range(number):
        group, kind = int(rng.choice(len(shares), p=shares)), int(rng.integers(4))
        documented = (1.0, 0.6, 0.5)[group]
        label = int(rng.random() < (0.3 if kind == 0 else 0.05))
        phenotypes = [p for p in range(len(words.phenotypes)) if rng.random() < (0.7 if p == kind % 2 else 0.1)]
        own = [
            np.flatnonzero(rng.random(len(words.codes)) < documented * rates[kind]).tolist()
            for _ in range(int(min(1 + rng.poisson(0.5), maximum_visits)))
        ]
        patients.append((group, label, int(rng.integers(2)), kind % len(words.ages), phenotypes, own))
    return records_of(patients, words=words)


def study_of(
    records, *, words=SMALL_VOCABULARY, generator=SMALL, objective=None, patients=None, positions=None, **training
):
    config = StudyConfig(
        schema="fairsynth.study/1",
        name="toy",
        seed=1,
        sites=(SiteEntry(site="a", config="a", data="a"),),
        groups=GroupsConfig(names=words.groups, reference=words.groups[:1]),
        generator=generator,
        objective=objective or ObjectiveConfig(),
        training=TrainingConfig(**training),
    )
    totals = Totals(patients=patients or len(records), positions=positions or float(records.visit_counts.mean() + 1))
    return Study(vocabulary=words, plan=config.plan(), totals=totals)


def rough_weights(*, words, config, seed, noise=0.5):
    """Weights far from the sparse start, so that every dependence between tokens shows."""
    weights = initial_weights(words, config, seed=seed)
    rng = np.random.default_rng(seed)
    for name, array in weights.items():
        moved = rng.normal(0, noise, size=array.shape).astype(np.float32)
        weights[name] = array + moved if name != "head.output_bias" else moved
    return weights
