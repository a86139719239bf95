"""A verb that is stopped leaves the old state or the new one, and can be repeated."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from consortium_stories import begun, hashes

from fairsynth.errors import ConfigError
from fairsynth.provisioning import coordinator, documents, grants, node_keys, records, request
from fairsynth.provisioning.connection import read_connection, read_server


@pytest.fixture
def story(tmp_path):
    return begun(tmp_path / "story")


def test_init_makes_a_whole_folder_or_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(records, "kit_of", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            begun(tmp_path)
    assert not (tmp_path / "hub").exists()
    story = begun(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["consortium.yaml", "hub"]
    before = hashes(story.hub)
    with pytest.raises(ConfigError, match="something is here"):
        begun(tmp_path)
    assert hashes(story.hub) == before
    (tmp_path / "empty").mkdir()
    coordinator.init(tmp_path / "consortium.yaml", tmp_path / "empty")
    assert hashes(tmp_path / "empty").keys() == before.keys()


STOPPED = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    import fairsynth.artefacts as artefacts
    from fairsynth.provisioning import grants, request

    left = int(sys.argv[1])
    write = artefacts.write_bytes

    def counted(*arguments):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        write(*arguments)

    artefacts.write_bytes = counted
    replace = Path.replace

    def renamed(path, target):
        global left
        if path.name == "supernode.key.new":
            if left == 0:
                os._exit(9)
            left -= 1
        return replace(path, target)

    Path.replace = renamed
    verb, one, other = sys.argv[2:]
    if verb == "accept":
        grants.accept(Path(one), Path(other))
    else:
        request.install(Path(other), Path(one))
    """
)


def stopped(number, verb, folder, file):
    """Run a verb in a process of its own that dies before its write `number`; whether it died."""
    code = subprocess.run(
        [sys.executable, "-c", STOPPED, str(number), verb, str(folder), str(file)], check=False
    ).returncode
    assert code in (0, 9)
    return code == 9


def test_an_accept_that_is_killed_leaves_the_old_state_or_the_new_one_and_can_be_repeated(story):
    story.joined("boston")
    asked = story.asked("boston", renew=True)
    start, old = hashes(story.hub), read_server(story.hub).granted["boston"].supernode_sha256
    number = 0
    while True:
        shutil.rmtree(story.root / "try", ignore_errors=True)
        hub = Path(shutil.copytree(story.hub, story.root / "try"))
        if not stopped(number, "accept", hub, asked):
            break
        assert number > 0 or hashes(hub) == start
        between = read_server(hub).granted["boston"].supernode_sha256
        assert between == old  # the server's file is written last
        (boston,) = [one for one in coordinator.show(hub)["sites"] if one["site"] == "boston"]
        assert boston["serial"] == (1 if number == 0 else 2)  # any verb finishes what was entered
        final = grants.accept(hub, asked)[1]
        assert final.serial == 2
        server = read_server(hub)
        assert server.granted["boston"].supernode_sha256 == final.supernode_sha256 != old
        assert documents.read(hub / "grants" / "boston.grant.json", documents.Grant) == final.grant
        assert server.supernode("boston").read_text() == final.grant.supernode + "\n"
        number += 1
    assert number == 4  # record, grant, public key, server.json


def test_an_install_that_is_killed_leaves_a_key_that_is_whole_and_can_be_repeated(story):
    story.joined("boston")
    old = node_keys.public_line(node_keys.read_node_key(story.site("boston") / "supernode.key"))
    grant = story.granted("boston", renew=True)
    new = documents.read(grant, documents.Grant).supernode
    number, seen = 0, []
    while True:
        shutil.rmtree(story.root / "try", ignore_errors=True)
        site = Path(shutil.copytree(story.site("boston"), story.root / "try"))
        died = stopped(number, "install", site, grant)
        seen.append(node_keys.public_line(node_keys.read_node_key(site / "supernode.key")))
        assert read_connection(site).serial in (1, 2)
        request.install(grant, site)
        assert node_keys.public_line(node_keys.read_node_key(site / "supernode.key")) == new
        assert (read_connection(site).serial, (site / "supernode.key.new").exists()) == (2, False)
        if not died:
            break
        number += 1
    assert seen == [old, new, new, new, new]


def test_a_request_that_is_repeated_is_for_the_same_keys(story):
    first = documents.read(story.asked("boston"), documents.Request)
    (story.site("boston") / "request.json").unlink()
    (story.site("boston") / "superexec.secret").unlink()
    again = documents.read(story.asked("boston"), documents.Request)
    assert (again.identity, again.supernode) == (first.identity, first.supernode)
    assert (story.site("boston") / "superexec.secret").is_file()


def test_the_same_request_twice_gives_the_same_grant(story):
    first, again = story.granted("boston").read_bytes(), None
    grants.accept(story.hub, story.mail / "boston.request.json")
    again = (story.hub / "grants" / "boston.grant.json").read_bytes()
    assert first == again
