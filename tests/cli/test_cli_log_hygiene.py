"""An unforeseen fault of a library, whatever its kind, is told by type and place."""

import polars as pl
import pytest

from fairsynth import extraction
from fairsynth.cli import main

DRUG = "Canarycillin"


def panic(*_, **__):
    """What polars raises where its own code breaks: a BaseException that is no Exception."""
    raise pl.exceptions.PanicException(DRUG)


def number(*_, **__):
    int(DRUG)


@pytest.mark.parametrize("broken, kind", [(panic, "PanicException"), (number, "ValueError")])
def test_a_fault_of_a_library_is_printed_without_its_text(broken, kind, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(extraction, "extract", broken)
    with pytest.raises(SystemExit) as stopped:
        main(["extract", str(tmp_path), "--config", str(tmp_path), "--out", str(tmp_path / "site")])
    assert stopped.value.code == 3
    out, err = capfd.readouterr()
    assert f"FS-900 unforeseen {kind}" in err
    assert DRUG not in out + err
