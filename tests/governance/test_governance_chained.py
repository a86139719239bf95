import json
from pathlib import Path

import pytest

from fairsynth.errors import ArtefactError
from fairsynth.governance.chained import Chained

ENTRIES = [{"label": "a", "value": 1}, {"label": "b", "value": [1.5, 2]}, {"label": "ü", "value": None}]


def written(path: Path, entries=ENTRIES):
    chained = Chained.begin(path)
    for entry in entries:
        with chained.appending() as file:
            file.append(entry)
    return chained


def test_what_is_appended_is_read_in_order(tmp_path):
    assert written(tmp_path / "ledger.jsonl").read() == ENTRIES


def test_the_file_is_for_its_owner_only(tmp_path):
    chained = written(tmp_path / "ledger.jsonl")
    assert chained.path.stat().st_mode & 0o777 == 0o600
    chained.path.chmod(0o644)
    with pytest.raises(ArtefactError, match="open to other users"):
        chained.read()


def test_a_missing_file_is_not_an_empty_one(tmp_path):
    with pytest.raises(ArtefactError, match="fairsynth restore"):
        Chained(tmp_path / "ledger.jsonl").read()
    with pytest.raises(ArtefactError, match="fairsynth restore"), Chained(tmp_path / "ledger.jsonl").appending():
        pass


def test_a_file_is_begun_once(tmp_path):
    chained = written(tmp_path / "ledger.jsonl")
    with pytest.raises(ArtefactError, match="exists already"):
        Chained.begin(chained.path)
    assert chained.read() == ENTRIES


def test_cut_at_any_byte_the_whole_lines_before_it_stay_and_the_next_follows(tmp_path):
    content = written(tmp_path / "whole.jsonl").path.read_bytes()
    chained = Chained.begin(tmp_path / "cut.jsonl")
    for length in range(len(content) + 1):
        chained.path.write_bytes(content[:length])
        kept = content[:length].count(b"\n")
        assert chained.read() == ENTRIES[:kept]
        with chained.appending() as file:
            file.append({"label": "after"})
        assert chained.read() == [*ENTRIES[:kept], {"label": "after"}]


def test_a_changed_byte_is_refused_wherever_it_is(tmp_path):
    chained = written(tmp_path / "ledger.jsonl")
    content = chained.path.read_bytes()
    for place in range(len(content) - 1):  # without its last newline, the last line is one that was cut
        if content[place : place + 1] == b"\n":
            continue
        changed = bytearray(content)
        changed[place] ^= 1
        chained.path.write_bytes(bytes(changed))
        with pytest.raises(ArtefactError, match="does not fit"):
            chained.read()


def test_a_line_taken_out_is_refused(tmp_path):
    chained = written(tmp_path / "ledger.jsonl")
    first, _, third = chained.path.read_bytes().splitlines(keepends=True)
    chained.path.write_bytes(first + third)
    with pytest.raises(ArtefactError, match=r"ledger\.jsonl:2"):
        chained.read()


def test_a_number_that_json_does_not_have_is_refused_before_anything_is_written(tmp_path):
    chained = written(tmp_path / "ledger.jsonl")
    with pytest.raises(ValueError, match="JSON"), chained.appending() as file:
        file.append({"value": float("nan")})
    assert chained.read() == ENTRIES


def test_each_line_is_readable_json(tmp_path):
    lines = written(tmp_path / "ledger.jsonl").path.read_text().splitlines()
    assert [json.loads(line)["entry"] for line in lines] == ENTRIES
