"""The ledger: whatever is done to it afterwards is found, with the number of the line."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from governance_stories import NOW
from hypothesis import given, settings
from hypothesis import strategies as st

from fairsynth.errors import KeyRefused, LedgerDamaged
from fairsynth.governance import ledger
from fairsynth.governance.identity import PUBLIC, create_identity, load_identity
from fairsynth.governance.ledger import HEAD, NAME, Facts, find_fault

FACTS = st.builds(
    Facts,
    event=st.sampled_from(["approved", "released", "resent"]),
    study=st.sampled_from(["", "a" * 64, "b" * 64]),
    kind=st.sampled_from(["trained", "audited"]),
    label=st.text(max_size=8),
    bytes=st.integers(0, 2**50),
    arrays=st.dictionaries(st.sampled_from(["soft", "weight/*"]), st.integers(0, 2**40)),
    epsilon=st.none() | st.floats(0, 1e6),
    officer=st.text(max_size=8),
)


def written(root, facts):
    identity = create_identity(root)
    with ledger.opened(root, identity=identity) as book:
        for one in facts:
            book.append(one, now=NOW)
    return identity


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound")
    written(root, [Facts(event="released", kind="trained", label=f"trained/{number}") for number in range(4)])
    return root


@pytest.fixture
def book(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "site")


def lines(root):
    return (root / NAME).read_bytes().splitlines(keepends=True)


@settings(deadline=None, max_examples=40)
@given(facts=st.lists(FACTS, max_size=6), cut=st.integers(0, 6))
def test_any_list_of_facts_is_read_back_in_order_chained_and_sound_however_it_was_opened(facts, cut):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        written(root, facts[:cut])
        with ledger.opened(root, identity=load_identity(root)) as book:
            for one in facts[cut:]:
                book.append(one, now=NOW)
        entries = ledger.read(root)
        assert [Facts(**entry.model_dump(include=set(Facts.model_fields))) for entry in entries] == facts
        assert [entry.previous for entry in entries] == [ledger.START, *(entry.hash for entry in entries)][: len(facts)]
        assert find_fault(root) is None


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_byte_changed_anywhere_is_found_on_its_line(data, sound):
    with tempfile.TemporaryDirectory() as folder:
        root = shutil.copytree(sound, Path(folder) / "site")
        content = bytearray((root / NAME).read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        value = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
        line = content[:place].count(b"\n") + 1
        content[place] = value
        (root / NAME).write_bytes(content)
        fault = find_fault(root)
        assert fault is not None
        assert fault.line == line


FIELDS = ["event", "study", "kind", "label", "bytes", "sha256", "arrays", "masked", "epsilon", "cohort", "officer"]
MORE = ["resend_of", "number", "time", "previous", "hash", "signature"]


@pytest.mark.parametrize("name", [*FIELDS, *MORE])
def test_another_value_in_any_field_of_a_line_is_found_there(name, book):
    other = {"event": "resent", "bytes": 5, "arrays": {"soft": 8}, "masked": ["soft"], "epsilon": 0.5, "resend_of": 1}
    found = lines(book)
    entry = json.loads(found[1])
    entry[name] = {**other, "number": 7}.get(name, "f" * 64)
    found[1] = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
    (book / NAME).write_bytes(b"".join(found))
    assert find_fault(book).line == 2


def test_a_signature_in_capitals_is_another_line(book):
    found = lines(book)
    signature = json.loads(found[3])["signature"]
    found[3] = found[3].replace(signature.encode(), signature.upper().encode())
    (book / NAME).write_bytes(b"".join(found))
    assert find_fault(book).line == 4


def test_a_line_written_anew_with_a_right_hash_is_found_by_the_one_that_follows(book):
    found = lines(book)
    entry = ledger.Entry.model_validate_json(found[1]).model_copy(update={"bytes": 5})
    entry = entry.model_copy(update={"hash": entry.expected_hash})
    found[1] = entry.model_dump_json().encode() + b"\n"
    (book / NAME).write_bytes(b"".join(found))
    assert find_fault(book).line in (2, 3)


def test_a_whole_chain_written_anew_by_another_key_is_found(book, tmp_path):
    other = tmp_path / "other"
    written(other, [Facts(event="released", kind="trained")])
    for name in (NAME, HEAD):
        shutil.copy(other / name, book / name)
    fault = find_fault(book)
    assert (fault.line, fault.what) == (1, "not signed by this site")
    with ledger.opened(book, identity=load_identity(book)) as mine, pytest.raises(LedgerDamaged, match="not signed"):
        mine.append(Facts(event="released"), now=NOW)


def test_a_key_noted_elsewhere_is_not_deceived_by_a_ledger_and_a_public_key_put_back_together(book, tmp_path):
    mine = load_identity(book).public
    other = tmp_path / "other"
    written(other, [Facts(event="released", kind="trained")])
    for name in (NAME, HEAD, PUBLIC):
        shutil.copy(other / name, book / name)
    assert find_fault(book) is None
    assert find_fault(book, public=mine).line == 1


@pytest.mark.parametrize("left", range(4))
def test_a_ledger_that_was_cut_is_found(left, book):
    (book / NAME).write_bytes(b"".join(lines(book)[:left]))
    fault = find_fault(book)
    assert (fault.line, fault.what) == (left + 1, "cut: 4 lines were written")


def test_a_ledger_that_was_cut_inside_a_line_is_not_taken_for_a_crash(book):
    (book / NAME).write_bytes((book / NAME).read_bytes()[:-20])
    assert find_fault(book).what == "cut: 4 lines were written"


def test_a_ledger_that_is_gone_is_found(book):
    (book / NAME).unlink()
    assert find_fault(book).what == "cut: 4 lines were written"


@pytest.mark.parametrize("left", [1, 4])
def test_a_head_that_is_gone_is_found(left, book):
    (book / NAME).write_bytes(b"".join(lines(book)[:left]))
    (book / HEAD).unlink()
    assert find_fault(book).what == "ledger.head is missing"


def test_a_damaged_head_is_found(book):
    (book / HEAD).write_text("{}")
    assert find_fault(book).what == "ledger.head is damaged"


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2, 3), (0, 2, 3), (1, 2, 3)])
def test_lines_swapped_doubled_or_left_out_are_found(order, book):
    found = lines(book)
    (book / NAME).write_bytes(b"".join(found[index] for index in order))
    first = next(place for place, index in enumerate(order) if index != place)
    assert find_fault(book).line == first + 1


def test_an_older_pair_of_ledger_and_head_is_found_by_a_hash_that_was_noted(book):
    older = shutil.copytree(book, book.parent / "older")
    with ledger.opened(book, identity=load_identity(book)) as mine:
        noted = mine.append(Facts(event="released"), now=NOW).hash
    assert find_fault(book, expected=noted) is None
    assert find_fault(older) is None
    assert "noted" in find_fault(older, expected=noted).what


def test_nothing_is_added_to_a_damaged_ledger(book):
    content = (book / NAME).read_bytes().replace(b"trained/1", b"trained/7")
    (book / NAME).write_bytes(content)
    with ledger.opened(book, identity=load_identity(book)) as mine, pytest.raises(LedgerDamaged, match="jsonl:2"):
        mine.append(Facts(event="released"), now=NOW)
    assert (book / NAME).read_bytes() == content


def test_a_crash_between_line_and_head_is_no_fault_and_the_next_line_mends_the_head(book):
    head = (book / HEAD).read_bytes()
    with ledger.opened(book, identity=load_identity(book)) as mine:
        mine.append(Facts(event="released"), now=NOW)
    (book / HEAD).write_bytes(head)
    assert find_fault(book) is None
    with ledger.opened(book, identity=load_identity(book)) as mine:
        mine.append(Facts(event="released"), now=NOW)
    assert json.loads((book / HEAD).read_text())["number"] == 6
    assert find_fault(book) is None


def test_crashes_between_line_and_head_one_after_the_other_are_no_fault(book, monkeypatch):
    write = ledger._write_head

    def killed(root, last):
        raise KeyboardInterrupt  # no handler of the ledger sees it, as with a kill

    for number in (5, 6, 7):
        with ledger.opened(book, identity=load_identity(book)) as mine:
            mine.entries(now=NOW)
            monkeypatch.setattr(ledger, "_write_head", killed)
            with pytest.raises(KeyboardInterrupt):
                mine.append(Facts(event="released"), now=NOW)
            monkeypatch.setattr(ledger, "_write_head", write)
        assert len(lines(book)) == number
        assert find_fault(book) is None


def test_a_head_two_lines_behind_is_no_crash(book):
    head = (book / HEAD).read_bytes()
    with ledger.opened(book, identity=load_identity(book)) as mine:
        for _ in range(2):
            mine.append(Facts(event="released"), now=NOW)
    (book / HEAD).write_bytes(head)
    assert find_fault(book).what == "ledger.head is older than the lines"


def test_a_ledger_is_not_verified_without_a_key(book):
    (book / PUBLIC).unlink()
    with pytest.raises(KeyRefused):
        find_fault(book)
