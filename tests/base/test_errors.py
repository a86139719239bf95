"""Errors: what survives a way through another process, which makes them anew as a copy is made."""

import copy

import pytest

from fairsynth import errors
from fairsynth.errors import FairSynthError, Problem, SeveralErrors, combined

ONE = Problem(what="too few", where="site.yaml  groups", expected="two", do="add one")
OTHER = Problem(what="unknown", where="site.yaml  task")


def kinds(of=FairSynthError):
    return [of, *(kind for child in of.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize(
    "kind", [kind for kind in kinds() if kind is not SeveralErrors], ids=lambda kind: kind.__name__
)
def test_an_error_comes_out_of_another_process_as_it_went_in(kind):
    found = copy.copy(kind([ONE, OTHER]))
    assert type(found) is kind
    assert (found.problems, str(found)) == ((ONE, OTHER), str(kind([ONE, OTHER])))


def test_errors_of_several_kinds_keep_their_codes():
    both = combined([errors.ConfigError(ONE), errors.CohortError(OTHER)])
    found = copy.copy(both)
    assert (str(found), found.problems) == (str(both), (ONE, OTHER))
    assert str(found).startswith("FS-100 too few")
    assert "FS-250 unknown" in str(found)
