from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairsynth.augmentation.reweighing import reweigh

patients = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=60)


@given(patients)
def test_each_weight_is_the_ratio_of_probabilities_counted_patient_by_patient(pairs):
    everyone = len(pairs)
    group, label = (np.array(axis) for axis in zip(*pairs, strict=True))
    for weight, (own_group, own_label) in zip(reweigh(group, label, groups=4), pairs, strict=True):
        of_group = sum(g == own_group for g, _ in pairs) / everyone
        of_label = sum(y == own_label for _, y in pairs) / everyone
        of_both = sum((g, y) == (own_group, own_label) for g, y in pairs) / everyone
        assert weight == pytest.approx(of_group * of_label / of_both, rel=1e-12)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=4))
def test_weighted_every_group_has_the_same_share_of_positives_and_its_own_size(cells):
    group = np.repeat(np.arange(len(cells)), [sum(cell) for cell in cells])
    label = np.concatenate([np.repeat([0, 1], cell) for cell in cells])
    weights = reweigh(group, label, groups=len(cells))
    for each in range(len(cells)):
        own = group == each
        assert weights[own].sum() == pytest.approx(own.sum())
        assert weights[own] @ label[own] / own.sum() == pytest.approx(label.mean())


def test_a_positive_of_the_group_with_few_positives_weighs_most():
    group, label = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 0, 0, 1])
    assert reweigh(group, label, groups=2).tolist() == [1.25, 1.25, 0.75, 0.75, 5 / 6, 5 / 6, 5 / 6, 1.5]


def test_nobody_has_no_weights():
    nobody = np.zeros(0, dtype=np.int64)
    assert reweigh(nobody, nobody, groups=2).shape == (0,)
