"""The example of docs/library.md runs as it stands, and prints what the document shows."""

import contextlib
import io
import re

import pytest
from walk import ROOT

from fairsynth.generator.train import threads

TEXT = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
PASTED = re.search(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", TEXT, re.M | re.S)


def test_the_example_prints_what_the_document_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), threads(1):  # as many as there are is slower where others compute too
        exec(compile(PASTED[1], "docs/library.md", "exec"), {})
    assert said.getvalue() == PASTED[2]


def test_the_example_is_short():
    lines = [line for line in PASTED[1].splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 20


@pytest.mark.parametrize(
    "name", ["fit", "sample", "stream", "continue_", "nll", "save", "load", "conditions", "history"]
)
def test_what_the_table_names_exists(name):
    from fairsynth import HALO

    assert f"`.{name}" in TEXT
    assert hasattr(HALO(), name)
