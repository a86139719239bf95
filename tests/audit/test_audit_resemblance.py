from __future__ import annotations

from dataclasses import replace

import audit_toy as toy
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from fairsynth.audit.resemblance import label_prevalence, mean_resemblance, reference, resemblance
from fairsynth.audit.shapes import distance, lengths, values
from fairsynth.visits.bins import AGE_BINS
from fairsynth.visits.layout import Vocabulary

REAL = toy.draw([[400, 100], [400, 100]], seed=1)
FRESH = toy.draw([[400, 100], [400, 100]], seed=2)
REFERENCE = reference(REAL, vocabulary=replace(toy.VOCABULARY, ages=("18-29", "90+")))


def test_patients_resemble_themselves_in_every_figure():
    found = resemblance(REFERENCE, REAL)
    assert all(value == 1 for name, value in found.items() if name.startswith("r2/"))
    assert all(value == 0 for name, value in found.items() if name.endswith("wasserstein_sd"))


def test_fresh_patients_of_the_process_resemble_it_more_than_those_of_another():
    other = toy.draw([[400, 100], [400, 100]], seed=3, signal=0.9)
    near, far = (resemblance(REFERENCE, each) for each in (FRESH, other))
    for part in ("whole", "majority", "minority"):
        for name in ("visit_prevalence", "same_visit_bigrams", "sequential_bigrams"):
            assert near[f"r2/{part}/{name}"] > far[f"r2/{part}/{name}"]


def test_a_group_that_is_drawn_wrongly_is_told_by_its_own_row():
    """Only the minority is drawn from a process of its own."""
    right = toy.draw([[400, 100], [400, 100]], seed=4)
    majority = right.take(right.group == 0)
    other = toy.draw([[0, 0], [400, 100]], seed=5, signal=0.02)
    found = resemblance(REFERENCE, type(majority).concatenate([majority, other]))
    assert found["r2/majority/visit_prevalence"] > 0.5 > 0 > found["r2/minority/visit_prevalence"]


def test_the_mean_over_pieces_is_the_mean_of_each():
    pieces = [FRESH.take(np.arange(500)), FRESH.take(np.arange(500, 1000))]
    each = [resemblance(REFERENCE, piece)["r2/whole/visit_prevalence"] for piece in pieces]
    assert mean_resemblance(REFERENCE, pieces)["r2/whole/visit_prevalence"] == pytest.approx(np.mean(each))


def test_label_prevalence_is_by_group_and_absent_for_a_group_without_patients():
    found = label_prevalence(toy.draw([[75, 25], [0, 0]], seed=1), vocabulary=toy.VOCABULARY)
    assert found["label/whole"] == found["label/majority"] == pytest.approx(0.25)
    assert np.isnan(found["label/minority"])


def test_distance_is_scipys_in_sds_of_the_real_sample():
    real, other = np.random.default_rng(1).normal(3, 2, size=500), np.random.default_rng(2).normal(4, 1, size=300)
    found = distance(real, other)
    assert found.wasserstein_sd == pytest.approx(wasserstein_distance(real, other) / real.std())
    assert (found.real_mean, found.sd) == pytest.approx((real.mean(), other.std()))
    assert np.isnan(distance(real, other[:0]).wasserstein_sd)


def test_binned_values_are_the_middles_of_the_bins_that_tokens_name():
    codes = ("DX//CCS//1", "GAP//0d", "GAP//1-6d", "LAB//2345-7//normal", "LOS//0d")
    words = Vocabulary(codes=codes, groups=("one",), ages=tuple(AGE_BINS), phenotypes=())
    layout = words.layout
    records = replace(
        toy.draw([[1, 0], [0, 0]], seed=1),
        codes=np.array([0, 1, 2, 3]),
        visit_offsets=np.array([0, 2, 4]),
        patient_offsets=np.array([0, 2]),
        context=np.array([layout.groups.start, layout.sexes.start, layout.ages.start + 4]),
        context_offsets=np.array([0, 3]),
    )
    found = values(records, vocabulary=words)
    assert found["GAP"].tolist() == [0.5, 4.0] and found["LOS"].tolist() == []
    assert len(found["LAB//2345-7"]) == 1 and len(found["AGE"]) == 1
    assert set(found) == {"AGE", "GAP", "LOS", "LAB//2345-7"}


def test_lengths_are_visits_and_codes():
    found = lengths(REAL)
    assert found["visits_a_record"].sum() == REAL.visits == len(found["codes_a_visit"])
    assert found["codes_a_visit"].sum() == len(REAL.codes)
