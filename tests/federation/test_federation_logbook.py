"""What gets into server.log and site.log, and what does not, however careless the program."""

from __future__ import annotations

import json
import logging

import polars as pl
import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from resumed import Stopped, Stopping

from fairsynth.errors import FairSynthError
from fairsynth.federation import logbook
from fairsynth.federation.guard import guarded
from fairsynth.federation.logbook import Logbook
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study

CELL = "Canarycillin"
FRAME = repr(pl.DataFrame({"drug": [CELL]}))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def book(tmp_path):
    made = Logbook(tmp_path / "server.log", study="a" * 64)
    yield made
    made.close()


CARELESS = {
    "an extra field": {"patient": CELL},
    "a repr under a known name": {"phase": FRAME},
    "a value as a code": {"code": CELL},
    "a text as a number": {"seconds": CELL},
    "an object": {"site": {"name": CELL}},
    "a place that is none": {"at": f"site.py:1 {CELL} 8812"},
    "a problem with a part too many": {"problems": [{"what": "x", "value": CELL}]},
    "problems that are no list": {"problems": CELL},
    "what logging knows": {"exc_info": ValueError(CELL), "stack_info": CELL, "args": (CELL,)},
}


@pytest.mark.parametrize("case", CARELESS)
def test_a_field_that_the_schema_has_not_is_dropped_and_the_rest_stays(book, tmp_path, case):
    book.tell("failed", level=logging.ERROR, **{"round": 3, **CARELESS[case]})
    (line,) = lines(tmp_path / "server.log")
    assert CELL not in (tmp_path / "server.log").read_text()
    assert {name: line[name] for name in line if name != "time"} == {
        "level": "error",
        "event": "failed",
        "study": "a" * 64,
        "round": 3,
    }


@pytest.mark.parametrize("text", [CELL, FRAME, f"failed {CELL}", "failed\n"])
def test_a_text_that_is_no_event_is_no_line(book, tmp_path, text):
    book.tell(text)
    book.tell("started")
    assert [line["event"] for line in lines(tmp_path / "server.log")] == ["started"]


def test_a_record_of_an_exception_has_no_text_of_it(tmp_path):
    """As any program could log one: past `tell`, through the same filter and formatter."""
    book = Logbook(tmp_path / "server.log")
    try:
        int(CELL)
    except ValueError:
        book._logger.exception("failed", extra={"drug": CELL})
    book.close()
    assert [line["event"] for line in lines(tmp_path / "server.log")] == ["failed"]
    assert CELL not in (tmp_path / "server.log").read_text()


def test_times_are_utc(book, tmp_path):
    book.tell("started")
    assert lines(tmp_path / "server.log")[0]["time"].endswith("+00:00")


def test_files_are_turned_by_size_and_this_users_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(logbook, "LARGEST_BYTES", 2000)
    book = Logbook(tmp_path / "server.log")
    for number in range(200):
        book.tell("committed", round=number)
    book.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["server.log", *(f"server.log.{number}" for number in range(1, logbook.OLDER_FILES + 1))]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert lines(tmp_path / "server.log")[-1]["round"] == 199
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())


def test_a_log_that_cannot_be_written_stops_nothing_and_prints_nothing(tmp_path, capfd):
    (tmp_path / "server.log").mkdir()
    plan = toy_plan()
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_study_tells_from_start_to_stop(tmp_path):
    plan = toy_plan()
    with pytest.raises(Stopped):
        run_study(Stopping(InProcess(toy_sites(plan)), number=3, answered=False), plan=plan, root=tmp_path)
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path, resume=True)
    told = lines(tmp_path / "server.log")
    events = [line["event"] for line in told]
    assert (events[0], events[-2:]) == ("started", ["finished", "stopped"])
    assert events.count("resumed") == 1
    assert [(line["code"], line["type"]) for line in told if line["event"] == "stopped" and "code" in line] == [
        ("FS-900", "Stopped")
    ]
    assert {line["study"] for line in told} == {plan_sha256(plan)}
    rounds = [(line["arm"], line["round"]) for line in told if line["event"] == "committed"]
    assert rounds == [(arm, number) for arm in ("plain", "fairsynth") for number in range(3)]
    assert {line["phase"] for line in told if line["event"] == "asked"} >= {"enrol", "agree", "audit"}
    assert all(set(line) <= {"time", "level", "event", *logbook.SCHEMA} for line in told)


def test_a_refused_reply_and_a_failure_are_told_with_their_codes_alone(tmp_path):
    plan = toy_plan()
    sites = toy_sites(plan, b=lambda kind, envelope: None if kind == "agree" else envelope)
    with pytest.raises(FairSynthError):
        run_study(InProcess(sites), plan=plan, root=tmp_path)
    told = {line["event"]: line for line in lines(tmp_path / "server.log")}
    assert (told["refused"]["site"], told["refused"]["code"], told["refused"]["level"]) == (
        "site-b",
        "FS-301",
        "warning",
    )
    assert (told["failed"]["code"], told["failed"]["level"]) == ("FS-300", "error")
    assert "problems" not in told["failed"]


def test_a_site_writes_the_same_shape(tmp_path):
    def fails(root):
        raise ValueError(CELL)

    guarded(lambda: tmp_path, fails, phase="query.enrol")
    (line,) = lines(tmp_path / "site.log")
    assert (line["event"], line["phase"], line["code"], line["type"]) == (
        "failed",
        "query.enrol",
        "FS-900",
        "ValueError",
    )
    assert line["at"].startswith("test_federation_logbook.py:")
    assert CELL not in (tmp_path / "site.log").read_text()
