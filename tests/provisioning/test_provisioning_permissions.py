"""Nothing private travels, and nothing works with a private file that others can read."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest
from consortium_stories import begun, hashes
from cryptography.hazmat.primitives import serialization

from fairsynth.errors import KeyRefused
from fairsynth.provisioning import coordinator, grants, node_keys, request
from fairsynth.provisioning.permissions import check_permissions, permission_problems

PRIVATE_SITE = {"identity.key", "supernode.key", "superexec.secret"}
PRIVATE_HUB = {"ca.key", "server/server.key", "server/superexec.secret", "server/control.secret"}


@pytest.fixture
def story(tmp_path):
    return begun(tmp_path / "story")


def secrets_of(folder, names):
    """The text and the bytes that a private file holds, however they might be written elsewhere."""
    found = []
    for name in names:
        content = (folder / name).read_bytes()
        found.append(content.strip())
        if b"PRIVATE KEY" in content:
            load = serialization.load_ssh_private_key if b"OPENSSH" in content else serialization.load_pem_private_key
            key = load(content, password=None)
            if hasattr(key, "private_numbers"):
                number = key.private_numbers().private_value
                raw = number.to_bytes((key.key_size + 7) // 8, "big")
                found += [str(number).encode(), f"{number:x}".encode()]
            else:
                raw = key.private_bytes_raw()
            found += [raw, raw.hex().encode()]
    return found


def test_nothing_private_is_in_a_file_that_travels(story):
    for site in ("boston", "lyon"):
        story.joined(site)
    story.joined("boston", renew=True)
    travelled = [path.read_bytes() for path in sorted(story.mail.iterdir())]
    assert {path.name for path in story.mail.iterdir()} == {
        f"{site}.{what}.json" for site in ("boston", "lyon") for what in ("kit", "request", "grant")
    }
    private = secrets_of(story.hub, PRIVATE_HUB)
    for site in ("boston", "lyon"):
        private += secrets_of(story.site(site), PRIVATE_SITE)
    assert len(private) == 4 * 5 + 2 * 3 + 4  # of EC keys five writings, of Ed25519 keys three; four secrets
    assert not [1 for content in travelled for secret in private if secret in content]
    assert not [1 for content in travelled if b"PRIVATE" in content]
    # the search finds what it is for
    assert any(secret in (story.hub / "server" / "server.key").read_bytes() for secret in private)


def test_private_files_are_their_owners_alone_from_the_first_moment(story):
    story.joined("boston")
    for folder, names in ((story.hub, PRIVATE_HUB), (story.site("boston"), PRIVATE_SITE)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {name: stat.S_IMODE((folder / name).stat().st_mode) for name in names} == dict.fromkeys(names, 0o600)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o601])
@pytest.mark.parametrize("name", [*sorted(PRIVATE_HUB), *sorted(PRIVATE_SITE)])
def test_a_private_file_of_another_mode_is_refused(story, name, mode):
    story.joined("boston")
    folder, who = (story.hub, "coordinator") if name in PRIVATE_HUB else (story.site("boston"), "site")
    (folder / name).chmod(mode)
    with pytest.raises(KeyRefused, match=f"private file of mode {mode:04o}") as refused:
        check_permissions(folder, who)
    (problem,) = refused.value.problems
    assert problem.do == f"chmod 600 {folder / name}"
    subprocess.run(problem.do.split(), check=True)
    check_permissions(folder, who)


VERBS = {
    "accept": lambda story, asked: grants.accept(story.hub, asked),
    "add": lambda story, _: coordinator.add(story.hub, "graz"),
    "revoke": lambda story, _: coordinator.revoke(story.hub, "boston"),
    "renew": lambda story, _: coordinator.renew_server(story.hub),
    "show": lambda story, _: coordinator.show(story.hub),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_of_the_coordinator_works_with_a_key_that_others_can_read(story, verb):
    asked = story.asked("boston")
    (story.hub / "ca.key").chmod(0o644)
    before = hashes(story.hub)
    with pytest.raises(KeyRefused, match=r"ca\.key"):
        VERBS[verb](story, asked)
    assert hashes(story.hub) == before


@pytest.mark.parametrize("name", ["supernode.key", "supernode.key.new", "identity.key", "superexec.secret"])
def test_no_verb_of_a_site_works_with_a_key_that_others_can_read(story, name):
    story.joined("boston")
    grant = story.granted("boston", renew=True)
    (story.site("boston") / name).chmod(0o644)
    before = hashes(story.site("boston"))
    for verb in (
        lambda: request.install(grant, story.site("boston")),
        lambda: story.asked("boston"),
        lambda: story.asked("boston", renew=True),
    ):
        with pytest.raises(KeyRefused, match=name.replace(".", r"\.")):
            verb()
    assert hashes(story.site("boston")) == before


def test_folders_that_others_can_write_links_and_missing_files_are_problems(story):
    site = story.joined("boston")
    site.chmod(0o777)
    shutil.move(site / "supernode.key", story.root / "elsewhere.key")
    (site / "supernode.key").symlink_to(story.root / "elsewhere.key")
    (site / "superexec.secret").unlink()
    found = permission_problems(site, "site", complete=True)
    assert [problem.what for problem in found] == [
        "folder of mode 0777, which others can write",
        "private file is a link or no file",
        "missing private file",
    ]
    with pytest.raises(KeyRefused, match="cannot be read"):
        node_keys.read_node_key(site / "supernode.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_private_file_of_another_user_is_refused(story):
    site = story.joined("boston")
    os.chown(site / "supernode.key", 12345, -1)
    (problem,) = permission_problems(site, "site")
    assert (problem.what, problem.do) == (
        "private file of another user (uid 12345)",
        f"chown 0 {site / 'supernode.key'}",
    )
    with pytest.raises(KeyRefused, match="another user"):
        node_keys.read_node_key(site / "supernode.key")
