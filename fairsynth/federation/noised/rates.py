"""How often each token occurs at a site of a study with noise: what its weights leave out, and the site adds at home.

In:  the site's folder and cohort, the plan.   Out: (V,) log-odds, the same whenever asked.
Never: a rate without noise, which weights trained on top of it would tell.
"""

from __future__ import annotations

from pathlib import Path

from fairsynth.config import StudyPlan
from fairsynth.federation.noised.household import Household
from fairsynth.federation.noised.releases import BASE_RATES
from fairsynth.federation.site_folder import read_site_folder
from fairsynth.generator.private_counts import noised_base_rates, occurrences
from fairsynth.governance.noise import UNIT
from fairsynth.governance.policy import read_policy
from fairsynth.schemas import FloatArray
from fairsynth.visits.cohort import Cohort


def household_of(root: Path, plan: StudyPlan, *, begin: bool = False) -> Household:
    """The site's noise in the study, under the policy that it has now. Raises as `Household.begin` and `open` do."""
    policy = read_policy(read_site_folder(root).config)
    return (Household.begin if begin else Household.open)(root, plan, policy=policy)


def noised_rates(household: Household, cohort: Cohort, *, plan: StudyPlan) -> FloatArray:
    """(V,) base rates with noise. Raises PolicyRefusal past the budget."""
    bound = plan.privacy.noise.tokens_norm
    sums = occurrences(cohort.train, vocabulary=cohort.vocabulary, bound=bound)
    found = household.noised(BASE_RATES, sums, sensitivity=bound * UNIT, asked=cohort.vocabulary.sha256)
    return noised_base_rates(found, vocabulary=cohort.vocabulary)
