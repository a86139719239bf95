"""What the server says: health, clock, what it hides, whether it knows the key. The answers are a stand-in's."""

import datetime

import pytest
from doctor_stories import Stand, change, found
from flwr.proto.fleet_pb2 import ActivateNodeRequest, RegisterNodeFleetRequest

from fairsynth.operations import checks_server as server
from fairsynth.operations.checks_files import load_node_key


def told(site, authority, *, skew=0.0, **answers):
    """Findings, and what was asked, where the server answers otherwise than it should."""
    with Stand(authority.issue_cert("localhost"), skew=skew) as stand:
        stand.told.answers |= {path.replace("__", "/"): answer for path, answer in answers.items()}
        change(site / "connection.json", port=stand.port)
        return found(site), stand.told.asked


def answering(path, status, **content):
    return {path: (status, content)}


def test_a_server_as_it_should_be(site, authority):
    findings, asked = told(site, authority)
    names = (server.HEALTH, server.CLOCK, server.CONTROL, server.RUNTIME, server.KEY, server.STRANGERS)
    assert {findings[name].state for name in names} == {"ok"}
    assert [path for _, path, _ in asked] == [
        "/health",
        server.LIST_RUNS,
        server.ACQUIRE_TASK,
        server.ACTIVATE,
        server.REGISTER,
    ]


@pytest.mark.parametrize(
    ("skew", "state"),
    [(0, "ok"), (50, "ok"), (90, "warning"), (330, "failed"), (-3.5, "warning"), (-8, "failed"), (-400, "failed")],
)
def test_the_clock_is_compared_with_the_servers(skew, state, site, authority):
    """`skew`: of the server's clock. A site that is ahead is refused sooner than one that is behind."""
    findings, _ = told(site, authority, skew=skew)
    clock = findings[server.CLOCK]
    assert clock.state == state
    if state != "ok":
        assert ("behind" in clock.said) == (skew > 0)
        assert "NTP" in clock.do


def test_a_server_that_tells_no_time_is_a_warning(site, authority):
    findings, _ = told(site, authority, skew=None)
    assert findings[server.CLOCK].state == "warning"


def test_the_time_that_an_answer_takes_is_no_skew():
    sent = datetime.datetime(2026, 11, 28, 9, 0, 0, tzinfo=datetime.UTC)
    answer = server.Answer(
        status=200,
        date=sent + datetime.timedelta(seconds=10),
        body=b"",
        sent=sent,
        received=sent + datetime.timedelta(seconds=20),
    )
    assert answer.skew == -1.0


@pytest.mark.parametrize("late", [0.0, 1.0, 1.99])
@pytest.mark.parametrize(("ahead", "state"), [(0.9, "ok"), (4.0, "warning"), (6.1, "failed")])
def test_the_age_of_the_time_that_a_server_tells_makes_no_good_clock_a_refused_one(ahead, state, late):
    """Whole seconds, looked up once a second: what Flower's server tells is up to two seconds old."""
    now = datetime.datetime(2026, 11, 28, 9, 0, 0, tzinfo=datetime.UTC)
    here = now + datetime.timedelta(seconds=ahead)
    date = now - datetime.timedelta(seconds=late)
    finding = server.clock_finding(server.Answer(status=200, date=date, body=b"", sent=here, received=here))
    assert finding.state == state


@pytest.mark.parametrize(
    ("status", "words"), [(502, "the SuperLink behind it does not"), (404, "something else"), (302, "something else")]
)
def test_a_server_that_is_not_well_is_not_asked_further(status, words, site, authority):
    findings, asked = told(site, authority, **answering("/health", status))
    assert (findings[server.HEALTH].state, words in findings[server.HEALTH].do) == ("failed", True)
    assert findings[server.CLOCK].state == "ok"
    assert {findings[name].state for name in (server.CONTROL, server.KEY)} == {"skipped"}
    assert [path for _, path, _ in asked] == ["/health"]


@pytest.mark.parametrize("path", [server.LIST_RUNS, server.ACQUIRE_TASK])
@pytest.mark.parametrize(
    ("status", "state"), [(200, "failed"), (400, "failed"), (302, "failed"), (403, "ok"), (503, "warning")]
)
def test_a_server_that_shows_what_it_should_hide_fails(path, status, state, site, authority):
    findings, asked = told(site, authority, **answering(path, status))
    name = {server.LIST_RUNS: server.CONTROL, server.ACQUIRE_TASK: server.RUNTIME}[path]
    assert findings[name].state == state
    if state == "failed":
        assert f"the server shows its {name}" in findings[name].said
    assert {body for _, asked_path, body in asked if asked_path == path} == {b""}


@pytest.mark.parametrize(
    ("status", "content", "state", "words"),
    [
        (400, {"code": 2003}, "ok", "knows this site"),
        (412, {"code": 2004}, "failed", "not registered yet, or revoked"),
        (401, {"detail": "x"}, "failed", "refuses the signature"),
        (404, {}, "failed", "proxy keeps sites out"),
        (500, {}, "warning", "could not be told"),
        (200, {}, "warning", "could not be told"),
        (400, {"code": "2003"}, "warning", "could not be told"),
        (400, [2003], "warning", "could not be told"),
    ],
)
def test_what_the_server_says_of_the_key(status, content, state, words, site, authority):
    findings, _ = told(site, authority, **{server.ACTIVATE: (status, content)})
    key = findings[server.KEY]
    assert (key.state, words in key.said, bool(key.do)) == (state, True, state != "ok")
    assert findings[server.STRANGERS].state == ("ok" if state == "ok" else "skipped")


def test_a_signature_that_is_refused_where_the_clock_is_wrong_tells_of_the_clock(site, authority):
    findings, _ = told(site, authority, skew=500, **answering(server.ACTIVATE, 401))
    assert (findings[server.KEY].state, findings[server.KEY].do) == ("failed", "mend the clock first")


@pytest.mark.parametrize(("status", "code", "state"), [(409, 1234, "failed"), (200, None, "failed"), (404, None, "ok")])
def test_a_server_that_lets_strangers_in_fails(status, code, state, site, authority):
    findings, _ = told(site, authority, **answering(server.REGISTER, status, code=code))
    assert findings[server.STRANGERS].state == state


def test_the_question_for_the_key_is_one_that_flower_reads(site):
    """And its heartbeat is one that Flower refuses: 0 s."""
    key = load_node_key(site / "supernode.key")
    body, headers = server.activation(key, at=datetime.datetime.now(datetime.UTC))
    request = ActivateNodeRequest.FromString(body)
    assert request.public_key.startswith(b"-----BEGIN PUBLIC KEY-----")
    assert request.heartbeat_interval == 0.0
    assert request.SerializeToString(deterministic=True) == body
    assert RegisterNodeFleetRequest.FromString(body).public_key == request.public_key
    assert set(headers) == {"Content-Type", "flwr-public-key", "flwr-timestamp", "flwr-signature"}


def test_a_server_that_answers_without_an_end_is_read_up_to_a_limit(site, authority):
    findings, _ = told(site, authority, **{server.ACTIVATE: (400, {"code": 2003, "x": "y" * 1_000_000})})
    assert findings[server.KEY].state == "warning"
