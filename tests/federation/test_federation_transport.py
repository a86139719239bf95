"""The two Flower halves with a grid in this process: messages, no network, no Flower processes."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from federation_real import own_config
from federation_toys import ToySite, toy_plan, toy_sites
from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from masked_toys import masked_plan, masked_sites

import server.transport as server_transport
from client.session import answer, site_folder
from fairsynth.config import AugmentationConfig
from fairsynth.errors import ConfigError, ProtocolError
from fairsynth.federation import activity, waiting
from fairsynth.federation.boundary import approve
from fairsynth.federation.flower import COLLECTED_SECONDS, MESSAGE_TYPES, decode, encode, lifetime
from fairsynth.federation.journal import read
from fairsynth.federation.messages import EnrolRequest, Envelope, Failed
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import run_study
from server.transport import GridTransport

CANARY = "patient 8812: ZZ9.CANARY"


class ToyGrid:
    """Answers at once, in reverse order, as Flower's Grid would; `names` are empty in simulation."""

    def __init__(self, sites, *, names, late=()):
        self.sites, self.names, self.late = sites, names, set(late)
        self.replies, self.types, self.ttls = {}, [], []

    def get_node_ids(self):
        return list(self.names)

    def get_nodes(self):
        return [SimpleNamespace(node_id=node, name=name) for node, name in self.names.items()]

    def push_messages(self, messages):
        numbers = []
        for message in messages:
            number = f"message-{len(self.types)}"
            self.types.append(message.metadata.message_type)
            self.ttls.append(message.metadata.ttl)
            message.metadata.__dict__["_message_id"] = number
            numbers.append(number)
            node = message.metadata.dst_node_id
            if node not in self.late:
                self.replies[number] = self.sites[node](message)
        return numbers

    def pull_messages(self, numbers):
        ready = [self.replies.pop(number) for number in list(numbers) if number in self.replies]
        return ready[::-1]


def speaking(site):
    """A node that answers with a toy site's replies, and claims to be node 666."""

    def respond(message):
        reply = site(decode(message.content))
        if reply is None:
            return Message(Error(0, reason=CANARY), reply_to=message)
        response = Message(encode(reply), reply_to=message)
        response.metadata.__dict__["_src_node_id"] = 666
        return response

    return respond


@pytest.fixture(autouse=True)
def _quick_flower_task(monkeypatch):
    """No long waits; and a message needs to be sent by some task of Flower."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(server_transport, "ROSTER_SECONDS", 0.3)
    monkeypatch.setattr(server_transport, "POLL_SECONDS", 0.02)


def grid_of(plan, *, named, late=(), **poison):
    sites = toy_sites(plan, **poison)
    nodes = {900 - index: site for index, site in enumerate(sites)}
    names = {node: site if named else "" for node, site in nodes.items()}
    return ToyGrid({node: speaking(sites[site]) for node, site in nodes.items()}, names=names, late=late)


@pytest.mark.parametrize("named", [True, False])
def test_a_whole_study_runs_over_a_grid_with_and_without_node_names(named, tmp_path):
    plan = toy_plan()
    grid = grid_of(plan, named=named)
    run_study(GridTransport(grid, roster=plan.roster, simulated=not named), plan=plan, root=tmp_path)
    assert read(tmp_path / "journal.jsonl")[-1]["event"] == "finished"
    assert set(grid.types) == {"query.enrol", "query.agree", "train", "query.audit"}


@pytest.mark.parametrize("named", [True, False])
def test_each_reply_is_told_when_it_comes_by_the_site_that_was_asked(named, tmp_path):
    plan = toy_plan()
    transport = GridTransport(grid_of(plan, named=named), roster=plan.roster, simulated=not named)
    run_study(transport, plan=plan, root=tmp_path)
    told = activity.read(tmp_path)
    assert {one.replies for one in told.sites.values()} == {9}
    assert set(told.asked.answered) == set(plan.roster)


def test_a_study_with_a_teacher_runs_over_a_grid_too(tmp_path):
    plan = toy_plan(augmentation=AugmentationConfig(synthetic_patients=10, candidates="taught"))
    grid = grid_of(plan, named=True)
    run_study(GridTransport(grid, roster=plan.roster, simulated=False), plan=plan, root=tmp_path)
    assert read(tmp_path / "journal.jsonl")[-1]["event"] == "finished"
    assert set(grid.types) == set(MESSAGE_TYPES.values()) - {"query.join"}


def test_a_masked_study_runs_over_a_grid_too(tmp_path):
    plan = masked_plan()
    sites = masked_sites(tmp_path, plan, toy_sites(plan))
    nodes = {900 - index: site for index, site in enumerate(sites)}
    grid = ToyGrid({node: speaking(sites[site]) for node, site in nodes.items()}, names=nodes)
    run_study(GridTransport(grid, roster=plan.roster, simulated=False), plan=plan, root=tmp_path / "server")
    assert read(tmp_path / "server" / "journal.jsonl")[-1]["event"] == "finished"
    assert set(grid.types) == {"query.join", "query.enrol", "query.agree", "train", "query.audit"}


def test_the_site_half_has_a_handler_for_every_kind_of_request():
    source = ast.parse((Path(__file__).resolve().parents[2] / "client" / "app.py").read_text(encoding="utf-8"))
    calls = [one for each in ast.walk(source) if isinstance(each, ast.FunctionDef) for one in each.decorator_list]
    handled = {ast.unparse(call).removeprefix("app.") for call in calls}
    assert handled == {
        "train()" if kind == "train" else f"query({kind.removeprefix('query.')!r})" for kind in MESSAGE_TYPES.values()
    }


def test_messages_expire_when_the_server_no_longer_waits_for_them(tmp_path):
    plan = toy_plan()
    grid = grid_of(plan, named=True)
    run_study(GridTransport(grid, roster=plan.roster, simulated=False), plan=plan, root=tmp_path)
    by_type = dict(zip(grid.types, grid.ttls, strict=True))
    expected = {"query.enrol": 4.0, "query.agree": 2.0, "train": 1.0, "query.audit": 4.0}
    beyond = {kind: by_type[kind] - seconds for kind, seconds in expected.items()}  # to fetch what came at the end
    assert beyond == pytest.approx(dict.fromkeys(expected, COLLECTED_SECONDS), abs=0.1)


def test_a_request_lives_as_long_as_it_takes_to_fetch_and_fold_the_replies():
    large = encode(Envelope(kind="train", fields="{}", arrays={"a": np.zeros(25_000_000, dtype=np.float32)}))
    assert lifetime(900, [large], sites=10) == pytest.approx(900 + COLLECTED_SECONDS + 3 * 10 * 100e6 / 25e6, rel=0.01)


def test_a_site_that_does_not_answer_is_absent_after_the_timeout_and_no_later():
    plan = toy_plan()
    grid = grid_of(plan, named=True, late=[900])
    transport = GridTransport(grid, roster=plan.roster, simulated=False)
    request = EnrolRequest(plan=plan).pack()
    started = time.monotonic()
    replies = dict(transport.ask(dict.fromkeys(plan.roster, request), timeout=0.3))
    assert set(replies) == {"site-b"}
    assert 0.3 <= time.monotonic() - started < 2


def test_a_node_outside_the_roster_is_never_asked():
    plan = toy_plan()
    grid = grid_of(plan, named=True)
    grid.names[1] = "intruder"
    transport = GridTransport(grid, roster=plan.roster, simulated=False)
    replies = dict(transport.ask(dict.fromkeys(plan.roster, EnrolRequest(plan=plan).pack()), timeout=1))
    assert set(replies) == set(plan.roster)
    assert len(grid.types) == 2


def test_a_roster_of_which_nobody_comes_online_ends_with_a_clear_error():
    plan = toy_plan()
    transport = GridTransport(ToyGrid({}, names={}), roster=plan.roster, simulated=False)
    with pytest.raises(ProtocolError, match="no site is online"):
        list(transport.ask(dict.fromkeys(plan.roster, EnrolRequest(plan=plan).pack()), timeout=0.1))


def test_an_error_of_a_node_and_a_damaged_reply_leave_the_site_out_and_tell_no_text(caplog):
    plan = toy_plan()
    grid = grid_of(plan, named=True, a=lambda kind, envelope: None)
    grid.sites[899] = lambda message: Message(RecordDict(), reply_to=message)
    transport = GridTransport(grid, roster=plan.roster, simulated=False)
    assert dict(transport.ask(dict.fromkeys(plan.roster, EnrolRequest(plan=plan).pack()), timeout=1)) == {}
    assert "CANARY" not in caplog.text


# --- the site half ---------------------------------------------------------------------------------------------------


PLAN = toy_plan()


def request_message(content=None):
    fields = json.dumps({"plan_sha256": plan_sha256(PLAN)})
    content = encode(Envelope(kind="train", fields=fields)) if content is None else content
    return Message(content, dst_node_id=5, message_type="train")


def context_of(folder=None, *, sites="", partition=None):
    node = {} if folder is None else {"site-folder": str(folder)}
    node = node if partition is None else {**node, "partition-id": partition}
    return Context(run_id=1, node_id=5, node_config=node, state=RecordDict(), run_config={"sites": sites})


def site_at(folder, name="site-a"):
    (folder / "raw").mkdir(parents=True)
    config = own_config(folder)
    values = {"site": name, "config": str(config), "data": str(folder / "raw")}
    (folder / "site.json").write_text(json.dumps(values))
    (folder / "plan.json").write_text(PLAN.model_dump_json(by_alias=True))
    approve(folder, PLAN, officer="test")
    return folder


def test_a_fault_with_a_patients_value_in_its_text_leaves_as_a_code_only(tmp_path):
    root = site_at(tmp_path / "site")

    def fault(root, request):
        raise RuntimeError(CANARY)

    reply = answer(request_message(), context_of(root), fault)
    assert Failed.unpack(decode(reply.content)) == Failed(site="site-a", code="FS-900")
    log = (root / "site.log").read_text()
    assert "CANARY" not in repr(reply.content) + log
    (line,) = map(json.loads, log.splitlines())
    assert line["type"] == "RuntimeError"
    assert line["at"].startswith("test_federation_transport.py:")


def test_an_error_of_fairsynth_leaves_as_its_code_and_its_problems_stay_in_the_sites_log(tmp_path):
    root = site_at(tmp_path / "site")

    def refuse(root, request):
        raise ConfigError.of("unknown key", where="site.yaml:3  sorce", do="did you mean 'source'?")

    reply = answer(request_message(), context_of(root), refuse)
    envelope = decode(reply.content)
    assert Failed.unpack(envelope).code == "FS-100"
    assert "sorce" not in envelope.fields
    assert json.loads((root / "site.log").read_text())["problems"][0]["where"] == "site.yaml:3  sorce"


OTHER = encode(Envelope(kind="audit", fields=json.dumps({"site": CANARY, "plan_sha256": plan_sha256(PLAN)})))


@pytest.mark.parametrize("content", [RecordDict(), OTHER])
def test_a_request_that_is_not_one_is_answered_with_a_code(content, tmp_path):
    from fairsynth.federation import site

    root = site_at(tmp_path / "site")
    reply = answer(request_message(content), context_of(root), site.train)
    assert Failed.unpack(decode(reply.content)).code == "FS-300"


def test_a_request_that_comes_to_its_work_after_the_servers_deadline_is_not_worked_on(tmp_path):
    root = site_at(tmp_path / "site")
    message = request_message()
    message.metadata.__dict__["_created_at"] -= message.metadata.ttl + 1
    reply = answer(message, context_of(root), lambda root, request: pytest.fail("worked on"))
    assert Failed.unpack(decode(reply.content)).code == "FS-300"
    assert "too late" in json.loads((root / "site.log").read_text())["problems"][0]["what"]


def test_a_reply_over_the_size_cap_is_answered_with_a_code(tmp_path, monkeypatch):
    root = site_at(tmp_path / "site")
    large = Envelope(kind="k", fields="x" * 200)
    message = request_message()
    monkeypatch.setattr("fairsynth.federation.flower.MAXIMUM_FIELDS", 199)
    reply = answer(message, context_of(root), lambda root, request: large)
    assert Failed.unpack(decode(reply.content)).code == "FS-300"


def test_a_site_without_a_folder_answers_with_a_code_instead_of_a_guess():
    reply = answer(request_message(), context_of(), lambda root, request: pytest.fail("asked without a folder"))
    assert Failed.unpack(decode(reply.content)).code == "FS-100"


def test_the_folder_of_the_supernode_wins_over_what_the_server_sends(tmp_path):
    sites = json.dumps([{"site": "site-a", "folder": "/etc"}])
    assert site_folder(context_of(tmp_path, sites=sites, partition=0)) == tmp_path


def test_a_simulated_node_takes_the_folder_of_its_partition():
    sites = json.dumps([{"site": "a", "folder": "/a"}, {"site": "b", "folder": "/b"}])
    assert str(site_folder(context_of(sites=sites, partition=1))) == "/b"
    with pytest.raises(ConfigError, match="no site folder"):
        site_folder(context_of(sites=sites, partition=2))


def losing(site, codes):
    """A node of which a message, a reply or the whole process is lost, as often as there are codes."""

    def respond(message):
        return Message(Error(codes.pop(0), reason=CANARY), reply_to=message) if codes else site(message)

    return respond


@pytest.mark.parametrize("code", [3, 4, 5, 8])
def test_a_node_whose_process_or_reply_was_lost_is_asked_again_once_it_is_online(code, monkeypatch):
    monkeypatch.setattr(server_transport, "AGAIN_SECONDS", 0.0)
    plan = toy_plan()
    grid = grid_of(plan, named=True)
    codes = [code, code]
    grid.sites[900] = losing(grid.sites[900], codes)
    away = iter([False, False, True])
    online = grid.get_node_ids
    monkeypatch.setattr(grid, "get_node_ids", lambda: online() if next(away, True) else [899])
    transport = GridTransport(grid, roster=plan.roster, simulated=False)
    replies = dict(transport.ask(dict.fromkeys(plan.roster, EnrolRequest(plan=plan).pack()), timeout=5))
    assert set(replies) == set(plan.roster)
    assert codes == []
    assert len(grid.types) == 4  # two sites, and one of them twice more
    assert next(away, None) is None
    assert grid.ttls[2] < grid.ttls[0]  # no longer than the server waits


def test_a_node_that_fails_in_another_way_or_stays_away_is_not_asked_again(monkeypatch):
    monkeypatch.setattr(server_transport, "AGAIN_SECONDS", 0.0)
    plan = toy_plan()
    for code, online in ((1, [900, 899]), (8, [899])):
        grid = grid_of(plan, named=True)
        grid.sites[900] = losing(grid.sites[900], [code])
        monkeypatch.setattr(grid, "get_node_ids", lambda online=online: online)
        transport = GridTransport(grid, roster=plan.roster, simulated=False)
        replies = dict(transport.ask(dict.fromkeys(plan.roster, EnrolRequest(plan=plan).pack()), timeout=0.3))
        assert set(replies) == {"site-b"}
        assert len(grid.types) == 2


class AwayGrid(ToyGrid):
    """A SuperLink that was away while it handed out the first requests: they are gone, and nobody says so."""

    def __init__(self, sites, *, names, clock):
        super().__init__(sites, names=names)
        self.clock, self.pulled, self.told = clock, 0, []

    def pull_messages(self, numbers):
        self.pulled += 1
        if self.pulled == 1:
            self.replies.clear()
            self.clock.now += 7.0
            return self.told
        return super().pull_messages(numbers)


class Clock:
    """A clock that goes as fast as one sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("code", [None, 5])
def test_requests_that_were_under_way_while_the_superlink_was_away_are_asked_again(code, monkeypatch):
    """Also where it says, when it is back, that it does not know one of the nodes any more."""
    plan, clock = toy_plan(), Clock()
    sites = toy_sites(plan)
    grid = AwayGrid(
        {1: speaking(sites["site-a"]), 2: speaking(sites["site-b"])}, names={1: "site-a", 2: "site-b"}, clock=clock
    )
    monkeypatch.setattr(server_transport, "time", clock)
    if code:
        push = grid.push_messages

        def pushed(messages):
            messages = list(messages)
            numbers = push(messages)
            grid.told = [Message(Error(code, reason=CANARY), reply_to=messages[0])] if grid.pulled == 0 else []
            return numbers

        monkeypatch.setattr(grid, "push_messages", pushed)
    link = GridTransport(grid, roster=plan.roster, simulated=False)
    replies = dict(link.ask(dict.fromkeys(plan.roster, EnrolRequest(plan=plan).pack()), timeout=60))
    assert sorted(replies) == ["site-a", "site-b"]
    assert [len(site.asked) for site in sites.values()] == [2, 2]
    assert clock.now < 20


class Fetching(ToyGrid):
    """Counts the messages that are asked for at once."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.fetched = []

    def pull_messages(self, numbers):
        self.fetched.append(len(numbers))
        return super().pull_messages(numbers)


@pytest.mark.parametrize(("size", "most"), [(1, 1), (1 << 30, 5)])
def test_large_replies_are_fetched_one_at_a_time(size, most, monkeypatch):
    monkeypatch.setattr(waiting, "AT_ONCE", size)
    plan = toy_plan(roster=tuple(f"site-{number}" for number in range(5)), quorum=5)
    toys = {site: ToySite(site, [[40, 5], [10, 2]], plan) for site in plan.roster}
    grid = Fetching(
        {number: speaking(toys[site]) for number, site in enumerate(plan.roster)}, names=dict(enumerate(plan.roster))
    )
    transport = GridTransport(grid, roster=plan.roster, simulated=False)
    request = EnrolRequest(plan=plan).pack({"members": np.zeros((2, 2), dtype=np.int64)})
    assert set(dict(transport.ask(dict.fromkeys(plan.roster, request), timeout=5))) == set(plan.roster)
    assert max(grid.fetched) == most


def test_a_reply_that_came_while_the_server_worked_on_another_counts_after_the_deadline():
    plan = toy_plan()
    grid = grid_of(plan, named=True)
    transport = GridTransport(grid, roster=plan.roster, simulated=False)
    replies = transport.ask(dict.fromkeys(plan.roster, EnrolRequest(plan=plan).pack()), timeout=0.2)
    pull, kept = grid.pull_messages, {}

    def one_at_first(numbers):
        kept.update(dict(list(grid.replies.items())[1:]) if not kept else {})
        for number in kept:
            grid.replies.pop(number, None)
        return pull(numbers)

    grid.pull_messages = one_at_first
    first, _ = next(replies)
    grid.pull_messages = pull
    grid.replies |= kept
    time.sleep(0.3)  # the server works on the first, beyond the deadline
    assert {first, *dict(replies)} == set(plan.roster)
    assert len(kept) == 1


def test_a_wait_for_a_reply_that_was_announced_and_never_came_is_no_outage():
    assert waiting.is_outage(6.0, received=0, withheld=False)
    assert waiting.is_outage(40.0, received=200_000_000, withheld=False)
    assert not waiting.is_outage(12.0, received=200_000_000, withheld=False)
    assert not waiting.is_outage(190.0, received=0, withheld=True)
