"""A server that ends at any moment and starts again comes to the same study, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from masked_toys import masked_plan, masked_sites
from resumed import Stopped, Stopping, digest

from fairsynth import artefacts
from fairsynth.config import AugmentationConfig, TrainingConfig
from fairsynth.errors import ArtefactError, CohortError, ConfigError, EngineError, ProtocolError
from fairsynth.federation import commits
from fairsynth.federation.desk import opened
from fairsynth.federation.journal import read, scan
from fairsynth.federation.rounds import run_study
from fairsynth.federation.server_folder import is_taken

TAUGHT = AugmentationConfig(synthetic_patients=10, candidates="taught")
TRAINING = TrainingConfig(rounds=3, local_epochs=1, round_deadline_seconds=1)


def plain(root):
    plan = toy_plan(augmentation=TAUGHT, training=TRAINING)
    return plan, InProcess(toy_sites(plan)), root / "server"


def masked(root):
    plan = masked_plan(augmentation=TAUGHT, training=TRAINING)
    return plan, InProcess(masked_sites(root, plan, toy_sites(plan))), root / "server"


KINDS = {"plain": plain, "masked": masked}


class Counting:
    def __init__(self, transport):
        self.transport, self.number = transport, 0

    def ask(self, requests, *, timeout):
        self.number += 1
        return self.transport.ask(requests, timeout=timeout)


@pytest.fixture(scope="module", params=KINDS)
def golden(request, tmp_path_factory):
    """A study that never stopped: how it is made, its digest, and the number of its exchanges."""
    plan, transport, root = KINDS[request.param](tmp_path_factory.mktemp("golden"))
    counting = Counting(transport)
    run_study(counting, plan=plan, root=root)
    return KINDS[request.param], digest(root), counting.number


def stops(exchanges):
    """Every exchange before and in training, and some of the many after it."""
    assert exchanges > 30
    return [*range(12), *range(12, exchanges, 9), exchanges - 1]


def test_it_ends_the_same_whichever_exchange_it_stopped_at(golden, tmp_path):
    make, expected, exchanges = golden
    for place, number in enumerate(stops(exchanges)):
        answered, taken = place % 3 > 0, place % 3 - 1
        plan, transport, root = make(tmp_path / str(number))
        with pytest.raises(Stopped):
            run_study(Stopping(transport, number=number, answered=answered, taken=taken), plan=plan, root=root)
        run_study(transport, plan=plan, root=root, resume=True)
        assert digest(root) == expected, f"exchange {number}, answered: {answered}, taken: {taken}"


def test_it_ends_the_same_when_every_exchange_stops_it_once(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, root = make(tmp_path)
    with pytest.raises(Stopped):
        run_study(Stopping(transport, number=1, answered=True), plan=plan, root=root)
    for restart in range(200):
        try:
            run_study(Stopping(transport, number=1, answered=bool(restart % 2)), plan=plan, root=root, resume=True)
            break
        except Stopped:
            pass
    assert digest(root) == expected
    assert restart > 5


def test_what_was_asked_and_accepted_is_not_asked_again(tmp_path):
    plan, transport, root = plain(tmp_path)
    with pytest.raises(Stopped):
        run_study(Stopping(transport, number=5, answered=True), plan=plan, root=root)
    sites = transport.sites.values()
    before = [len(site.asked) for site in sites]
    run_study(transport, plan=plan, root=root, resume=True)
    for site, number in zip(sites, before, strict=True):
        kinds = [request.kind for request in site.asked]
        assert kinds.count("enrol") == kinds.count("agree") == 1
        again, before = site.asked[number], site.asked[number - 1]  # the round that was not committed
        assert again.fields == before.fields
        assert all((again.arrays[name] == array).all() for name, array in before.arrays.items())


def test_a_site_that_was_left_out_stays_out(tmp_path):
    plan = toy_plan(quorum=1, training=TRAINING)
    silent = {"b": lambda kind, envelope: None if kind == "agree" else envelope}
    root = tmp_path / "server"
    with pytest.raises(Stopped):
        run_study(Stopping(InProcess(toy_sites(plan, **silent)), number=4, answered=False), plan=plan, root=root)
    well = toy_sites(plan)
    run_study(InProcess(well), plan=plan, root=root, resume=True)
    assert not well["site-b"].asked
    run_study(InProcess(toy_sites(plan, **silent)), plan=plan, root=tmp_path / "golden")
    assert digest(root) == digest(tmp_path / "golden")


def test_the_last_rounds_are_kept_and_the_last_of_each_arm(tmp_path):
    plan, transport, root = plain(tmp_path)
    run_study(transport, plan=plan, root=root)
    names = sorted(path.name for path in (root / "rounds").iterdir())
    assert names == ["fairsynth-00002", "fairsynth-00003", "fairsynth-00004", "plain-00004"]
    assert not (root / "exchanges").exists()


def stopped_in_training(root, make=masked, *, number=8):
    plan, transport, server = make(root)
    with pytest.raises(Stopped):
        run_study(Stopping(transport, number=number, answered=True), plan=plan, root=server)
    return plan, transport, server


def newest(server):
    return max((server / "rounds").iterdir(), key=lambda path: (path.name.startswith("plain"), path.name))


@pytest.mark.parametrize("name", ["state.json", "state.safetensors", "journal.jsonl", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "missing"])
def test_a_spoilt_round_is_told_and_the_one_before_it_is_used(golden, tmp_path, name, how):
    make, expected, _ = golden
    plan, transport, server = stopped_in_training(tmp_path, make, number=6)
    spoil(newest(server) / name, how)
    spoilt = newest(server).name
    run_study(transport, plan=plan, root=server, resume=True)
    (line,) = [event for event in read(server / "journal.jsonl") if event["event"] == "resumed"]
    assert line["spoilt"] == [spoilt]
    assert digest(server) == expected


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    else:
        place = content.find(b'"content": "') + 20 if path.name == "manifest.json" else len(content) // 3
        content[place] ^= 1
    path.write_bytes(content)


def test_all_rounds_spoilt_begins_the_arm_again(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, server = stopped_in_training(tmp_path, make, number=6)
    for folder in (server / "rounds").iterdir():
        spoil(folder / "state.safetensors", "flipped")
    run_study(transport, plan=plan, root=server, resume=True)
    assert digest(server) == expected


def test_a_trained_arm_whose_last_round_is_spoilt_comes_from_its_generator(golden, tmp_path):
    make, expected, exchanges = golden
    plan, transport, server = stopped_in_training(tmp_path, make, number=exchanges - 2)
    spoil(server / "rounds" / "plain-00004" / "state.safetensors", "cut")
    run_study(transport, plan=plan, root=server, resume=True)
    assert digest(server) == expected


def test_spoilt_exchanges_are_asked_again(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, server = stopped_in_training(tmp_path, make, number=6)
    for record in (server / "exchanges").glob("*/exchange.json"):
        spoil(record, "flipped")
    run_study(transport, plan=plan, root=server, resume=True)
    assert digest(server) == expected


def test_a_damaged_journal_is_restored_from_the_last_round_and_kept_beside_it(golden, tmp_path):
    make, expected, _ = golden
    for line in (0, 2, 5):
        plan, transport, server = stopped_in_training(tmp_path / str(line), make, number=7)
        path = server / "journal.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        lines[line % len(lines)] = lines[line % len(lines)].replace(b'"', b"'", 1)
        path.write_bytes(b"".join(lines))
        damaged = path.read_bytes()
        with pytest.raises(ArtefactError, match=f"line {line % len(lines) + 1}"):
            read(path)
        run_study(transport, plan=plan, root=server, resume=True)
        assert (server / "journal.damaged.jsonl").read_bytes() == damaged
        assert digest(server) == expected


def test_a_line_that_a_crash_cut_short_goes(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, server = stopped_in_training(tmp_path, make, number=7)
    path = server / "journal.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    run_study(transport, plan=plan, root=server, resume=True)
    assert digest(server) == expected


def test_every_bit_of_a_journal_line_counts(tmp_path):
    server = stopped_in_training(tmp_path, plain)[2]
    path = server / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    first = lines[0]
    for place in range(0, len(first) - 1, 7):
        changed = bytearray(first)
        changed[place] ^= 1 << (place % 8)
        if 0x0A in changed[:-1]:
            continue
        path.write_bytes(bytes(changed) + b"".join(lines[1:]))
        assert scan(path).damaged == 1


def test_a_second_server_is_refused_while_the_first_works(tmp_path):
    plan, transport, server = plain(tmp_path)
    with opened(server, plan=plan, resume=False, progress=lambda _: None):
        before = sorted(path.name for path in server.iterdir())
        assert is_taken(server)
        for resume in (False, True):
            with pytest.raises(EngineError, match="another server"):
                run_study(transport, plan=plan, root=server, resume=resume)
        assert sorted(path.name for path in server.iterdir()) == before
    assert not is_taken(server)
    assert not is_taken(tmp_path / "nowhere")
    run_study(transport, plan=plan, root=server)


def test_who_looks_whether_a_server_works_does_not_stop_one_from_starting(tmp_path):
    plan, _, server = plain(tmp_path)
    server.mkdir()
    done = threading.Event()
    looking = threading.Thread(target=lambda: [is_taken(server) for _ in iter(done.is_set, True)])
    looking.start()
    try:
        for number in range(30):
            root = server if number else tmp_path / "first"
            with opened(root, plan=plan, resume=False, progress=lambda _: None):
                pass
    finally:
        done.set()
        looking.join()


def test_a_fresh_start_does_not_overwrite_committed_rounds(tmp_path):
    plan, transport, server = stopped_in_training(tmp_path)
    before = digest(server)
    with pytest.raises(ConfigError, match="--resume"):
        run_study(transport, plan=plan, root=server)
    assert digest(server) == before
    run_study(transport, plan=plan, root=server, resume=True)


def test_what_did_not_begin_or_is_another_study_is_not_resumed(tmp_path):
    plan, transport, server = plain(tmp_path)
    with pytest.raises(ConfigError, match="no study to resume"):
        run_study(transport, plan=plan, root=server, resume=True)
    other = plan.model_copy(update={"seed": plan.seed + 1})
    with pytest.raises(Stopped):
        run_study(Stopping(transport, number=4, answered=True), plan=plan, root=server)
    with pytest.raises(ConfigError, match="another study"):
        run_study(transport, plan=other, root=server, resume=True)


def test_other_software_than_it_began_with_is_refused(tmp_path, monkeypatch):
    plan, transport, server = stopped_in_training(tmp_path, plain)
    monkeypatch.setattr("fairsynth.artefacts.version", lambda name: "0.0.1")
    with pytest.raises(ArtefactError, match="versions"):
        run_study(transport, plan=plan, root=server, resume=True)
    monkeypatch.undo()
    run_study(transport, plan=plan, root=server, resume=True)


def test_below_quorum_it_stops_and_goes_on_when_the_site_is_back(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, server = make(tmp_path)
    sites = dict(transport.sites)
    gone = {"round": 0}

    def away(request):
        body = json.loads(request.fields)
        if request.kind == "train" and body["round"] == 2:
            gone["round"] += 1
            return None
        return sites["site-b"](request)

    with pytest.raises(ProtocolError, match="site-b"):
        run_study(InProcess({**sites, "site-b": away}), plan=plan, root=server)
    assert gone["round"]
    assert read(server / "journal.jsonl")[-1]["event"] == "failed"
    run_study(transport, plan=plan, root=server, resume=True)
    assert digest(server) == expected


def test_a_finished_study_resumed_changes_nothing(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, server = make(tmp_path)
    run_study(transport, plan=plan, root=server)
    before = (server / "journal.jsonl").read_bytes()
    run_study(Stopping(transport, number=0, answered=False), plan=plan, root=server, resume=True)
    assert (server / "journal.jsonl").read_bytes() == before
    assert digest(server) == expected


def test_a_full_disk_is_told_and_costs_no_committed_round(golden, tmp_path, monkeypatch):
    make, expected, _ = golden
    plan, transport, server = make(tmp_path)
    save, left = commits.save_file, {"rounds": 3}

    def full(arrays, path):
        left["rounds"] -= 1
        if left["rounds"] < 0:
            raise OSError(28, "No space left on device")
        save(arrays, path)

    monkeypatch.setattr(commits, "save_file", full)
    with pytest.raises(ArtefactError, match="make room"):
        run_study(transport, plan=plan, root=server)
    assert sorted(path.name for path in (server / "rounds").iterdir()) == [f"plain-0000{n}" for n in (1, 2, 3)]
    monkeypatch.undo()
    run_study(transport, plan=plan, root=server, resume=True)
    assert digest(server) == expected


def test_a_moved_folder_is_resumed_where_it_is(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, server = stopped_in_training(tmp_path, make)
    shutil.copytree(server, tmp_path / "elsewhere")
    run_study(transport, plan=plan, root=tmp_path / "elsewhere", resume=True)
    assert digest(tmp_path / "elsewhere") == expected


def test_what_a_crash_left_of_a_line_is_not_glued_to_the_first_line_of_a_new_start(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, server = make(tmp_path)
    server.mkdir(exist_ok=True)
    (server / "journal.jsonl").write_bytes(b'{"event": "stu')
    with pytest.raises(Stopped):
        run_study(Stopping(transport, number=6, answered=True), plan=plan, root=server)
    run_study(transport, plan=plan, root=server, resume=True)
    assert digest(server) == expected


@pytest.mark.parametrize("line", [1, 2, 7])
def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_no_part_of_it(golden, tmp_path, monkeypatch, line):
    make, expected, _ = golden
    plan, transport, server = make(tmp_path)
    server.mkdir(exist_ok=True)
    path, sync, told = server / "journal.jsonl", os.fsync, []

    def full(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink() == path:
            told.append(path.stat().st_size)
            if len(told) >= line:
                os.truncate(path, path.stat().st_size - 5)
                raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtefactError, match="journal could not be written"):
        run_study(transport, plan=plan, root=server)
    monkeypatch.undo()
    assert scan(path).damaged is None
    assert path.stat().st_size == (told[line - 2] if line > 1 else 0)
    run_study(transport, plan=plan, root=server, resume=True)
    assert digest(server) == expected


@pytest.mark.parametrize("code", [13, 28, 30])
def test_a_disk_that_fails_elsewhere_is_told_as_such(tmp_path, monkeypatch, code):
    plan, transport, server = plain(tmp_path)

    def failing(*given, **named):
        raise OSError(code, "no")

    monkeypatch.setattr("fairsynth.federation.loop.save", failing)
    with pytest.raises(ArtefactError, match="server's folder could not be used"):
        run_study(transport, plan=plan, root=server)
    assert read(server / "journal.jsonl")[-1]["event"] == "failed"


def test_a_start_that_was_killed_before_its_first_line_is_not_taken_for_the_study_before_it(tmp_path):
    plan, transport, server = plain(tmp_path)
    other = plan.model_copy(update={"seed": plan.seed + 1})
    for earlier in (other, plan):
        run_study(InProcess(toy_sites(earlier)), plan=earlier, root=server)
        with opened(server, plan=plan, resume=False, progress=lambda _: None):
            pass  # killed here
        before = len(read(server / "journal.jsonl"))
        counting = Counting(transport)
        run_study(counting, plan=plan, root=server, resume=True)
        assert counting.number > 10
        events = read(server / "journal.jsonl")[before:]
        assert [event["event"] for event in events[:2]] == ["resumed", "study"]
        assert events[-1]["event"] == "finished"


def test_a_folder_that_is_removed_under_the_server_ends_the_study_at_once(tmp_path):
    plan, transport, server = plain(tmp_path)
    asked = []

    class Removing:
        def ask(self, requests, *, timeout):
            asked.append(requests)
            if len(asked) == 3:
                shutil.rmtree(server)
            return transport.ask(requests, timeout=timeout)

    with pytest.raises(ArtefactError, match=r"could not be|not as this server left it"):
        run_study(Removing(), plan=plan, root=server)
    assert len(asked) <= 4
    assert not (server / "journal.jsonl").exists()


@pytest.mark.parametrize("name", ["plan.json", "run.json"])
def test_a_file_that_names_the_study_and_is_damaged_is_told_as_such(name, tmp_path):
    plan, transport, server = stopped_in_training(tmp_path, plain)
    path = server / name
    content = path.read_text()
    for damaged in (content.replace('": ', 'x": ', 1), content.replace("}", "", 1), ""):
        path.write_text(damaged)
        with pytest.raises(ArtefactError):
            run_study(transport, plan=plan, root=server, resume=True)
    path.write_text(content)
    run_study(transport, plan=plan, root=server, resume=True)


def test_a_round_on_a_disk_that_cannot_be_read_is_spoilt(golden, tmp_path, monkeypatch):
    make, expected, _ = golden
    plan, transport, server = stopped_in_training(tmp_path, make, number=7)
    bad, whole = newest(server) / "state.safetensors", artefacts.sha256_file

    def unreadable(path):
        if path == bad:
            raise OSError(5, "Input/output error")
        return whole(path)

    monkeypatch.setattr(artefacts, "sha256_file", unreadable)
    run_study(transport, plan=plan, root=server, resume=True)
    monkeypatch.undo()
    assert digest(server) == expected


def test_a_spoilt_exchange_is_told(golden, tmp_path):
    make, expected, _ = golden
    plan, transport, server = stopped_in_training(tmp_path, make, number=7)
    spoil(server / "exchanges" / "exchange-00000" / "exchange.json", "flipped")
    run_study(transport, plan=plan, root=server, resume=True)
    (line,) = [event for event in read(server / "journal.jsonl") if event["event"] == "resumed"]
    assert line["spoilt"] == ["exchange-00000"]
    assert digest(server) == expected


def test_a_round_that_is_lost_after_training_may_be_of_other_sites_this_time(tmp_path):
    """The site that missed it is back: what came after that round is superseded and asked again."""
    plan = toy_plan(quorum=1, augmentation=TAUGHT, training=TRAINING)
    sites, server = toy_sites(plan), tmp_path / "server"

    def away(request):
        body = json.loads(request.fields)
        absent = request.kind == "train" and (body["arm"], body["round"]) == ("fairsynth", 3)
        return None if absent else sites["site-b"](request)

    with pytest.raises(Stopped):
        run_study(Stopping(InProcess({**sites, "site-b": away}), number=14, answered=True), plan=plan, root=server)
    assert (server / "exchanges" / "exchange-00002").is_dir()  # of the teacher, who came after training
    spoil(server / "rounds" / "fairsynth-00004" / "state.safetensors", "flipped")
    run_study(InProcess(sites), plan=plan, root=server, resume=True)
    events = read(server / "journal.jsonl")
    lines = [event for event in events if event["event"] == "round" and event["arm"] == "fairsynth"]
    assert [(line["round"], line["sites"]) for line in lines] == [(n, ["site-a", "site-b"]) for n in range(4)]
    assert not [event for event in events if event["event"] == "refused"]
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / "golden")
    assert digest(server) == digest(tmp_path / "golden")


def test_rounds_that_an_earlier_run_left_are_not_this_runs(tmp_path):
    plan, transport, server = plain(tmp_path)
    run_study(transport, plan=plan, root=server)
    left = tmp_path / "left"
    shutil.copytree(server / "rounds", left)
    with pytest.raises(Stopped):
        run_study(Stopping(transport, number=3, answered=True), plan=plan, root=server)
    shutil.copytree(left, server / "rounds", dirs_exist_ok=True)
    run_study(transport, plan=plan, root=server, resume=True)
    (line,) = [event for event in read(server / "journal.jsonl") if event["event"] == "resumed"]
    assert sorted(line["spoilt"]) == sorted(path.name for path in left.iterdir())


def test_a_plain_study_that_failed_before_training_asks_the_mended_sites_anew(tmp_path):
    plan = toy_plan(training=TRAINING)
    sites, server = toy_sites(plan), tmp_path / "server"
    members = {name: site.members for name, site in sites.items()}
    for site in sites.values():
        site.members = [[row[0], 0] for row in site.members]
    with pytest.raises(CohortError, match="without positives"):
        run_study(InProcess(sites), plan=plan, root=server)
    for name, site in sites.items():
        site.members = members[name]
    run_study(InProcess(sites), plan=plan, root=server, resume=True)
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / "golden")
    assert digest(server) == digest(tmp_path / "golden")
