"""Five trials whose truth is known, and what is counted over them."""

import pytest
from evidence_stories import trials

from fairsynth.experiments.evidence.summary import summarise


@pytest.fixture(scope="session")
def cells():
    return trials()


@pytest.fixture(scope="session")
def summary(cells):
    return summarise(cells)
