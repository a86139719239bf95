"""The gate's thresholds, and how its chance of a false alarm is shared out.

In:  nothing.   Out: a frozen model; its hash is in every verdict.   Never: a patient.

A threshold says how much is too much; a level says how often chance alone may seem too much. Where a figure is above
its threshold but chance explains it, the gate does not fail: twelve gates that each fail an innocent generator in a
twentieth of all runs would block half of them. The levels sum to 0.045, so that (Bonferroni) at most 5 % of innocent
sets are blocked; a gate of several parts (codes, groups) shares its level among them.
"""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from fairsynth import artefacts
from fairsynth.config.base import Fraction, Strict


class Levels(Strict):
    """The one-sided probability with which a gate may fail by chance."""

    copies: Fraction = 0.01
    near: Fraction = 0.005
    auc: Fraction = 0.005
    top: Fraction = 0.005
    nnaa: Fraction = 0.005
    attribute: Fraction = 0.005
    singling_out: Fraction = 0.005
    groups: Fraction = 0.005


class ReleaseRules(Strict):
    """Thresholds of G0 to G11."""

    minimum_patients: PositiveInt = 1130  # real patients compared, of each side: an AUC is then known to 0.02
    minimum_codes: PositiveInt = 4  # records with fewer different clinical codes meet by chance and are not compared
    unmistakable_codes: PositiveInt = 8  # a record of so many, repeated, is no chance: not one may be
    near: Fraction = 0.1  # codes that differ, as a share of the real record's
    near_ratio: PositiveFloat = 1.25
    auc: Fraction = 0.52
    auc_upper: Fraction = 0.55
    false_positive_share: Fraction = 0.01
    top_ratio: PositiveFloat = 1.5
    nnaa: Fraction = 0.03
    attribute_risk: Fraction = 0.05
    singling_out_risk: Fraction = 0.1
    rare_support: PositiveInt = 11  # training patients of the site
    minimum_group: PositiveInt = 200  # real patients of a group on each side; smaller groups are judged together
    confidence: Fraction = 0.95  # of the one-sided limits that are shown
    sensitive_codes: PositiveInt = 10  # how many, where none are named
    common_share: Fraction = 0.1  # codes that this share of training patients has are known to the attacker
    predicates: PositiveInt = 2000
    predicate_codes: PositiveInt = 3
    levels: Levels = Levels()

    @property
    def sha256(self) -> str:
        """The hash that a verdict names."""
        return artefacts.sha256_json(self.model_dump(mode="json"))
