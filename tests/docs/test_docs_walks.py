"""What a document shows is what happens."""

import pytest
from walk import ROOT, in_clone


@pytest.mark.parametrize("name", ["new-hospital.md"])
def test_every_command_of_a_walk_prints_what_the_document_shows(name):
    path = ROOT / "docs" / name
    assert in_clone(path) == path.read_text(encoding="utf-8")
