"""A backup of a server, of a coordinator, and the file itself: what is in it, and what a changed one comes to."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import threading
from pathlib import Path

import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from governed_toys import site_of
from masked_toys import masked_plan, masked_sites
from resumed import Stopped, Stopping, digest

from fairsynth.cli import main
from fairsynth.config import AugmentationConfig, TrainingConfig
from fairsynth.errors import ArtefactError, ConfigError, FairSynthError, LedgerDamaged
from fairsynth.federation.messages import EnrolRequest
from fairsynth.federation.rounds import run_study
from fairsynth.operations import archive
from fairsynth.operations.backup import backup
from fairsynth.operations.restore import restore

TRAINING = TrainingConfig(rounds=3, local_epochs=1, round_deadline_seconds=1)
TAUGHT = AugmentationConfig(synthetic_patients=10, candidates="taught")


def plain(root):
    plan = toy_plan(training=TRAINING, augmentation=TAUGHT)
    return plan, InProcess(toy_sites(plan))


def masked(root):
    plan = masked_plan(training=TRAINING)
    return plan, InProcess(masked_sites(root, plan, toy_sites(plan)))


def stopped(root, make, *, number):
    plan, transport = make(root)
    with pytest.raises(Stopped):
        run_study(Stopping(transport, number=number, answered=True), plan=plan, root=root / "server")
    return plan, transport


@pytest.mark.parametrize("make, number", [(plain, 1), (plain, 5), (plain, 12), (masked, 8), (masked, 10)])
def test_a_restored_server_resumes_to_the_same_result(tmp_path, make, number):
    plan, transport = make(tmp_path / "golden")
    run_study(transport, plan=plan, root=tmp_path / "golden" / "server")
    plan, transport = stopped(tmp_path / "lost", make, number=number)
    backup(tmp_path / "lost" / "server", tmp_path / "server.tar")
    shutil.rmtree(tmp_path / "lost" / "server")
    restore(tmp_path / "server.tar", tmp_path / "new")
    run_study(transport, plan=plan, root=tmp_path / "new", resume=True)
    if make is plain:
        assert digest(tmp_path / "new") == digest(tmp_path / "golden" / "server")
    else:  # masked sites of another run have other keys: the results are the same, the run's name is not
        assert (
            digest(tmp_path / "new")["generator-fairsynth/weights.safetensors"]
            == (digest(tmp_path / "golden" / "server")["generator-fairsynth/weights.safetensors"])
        )


def test_a_backup_older_than_the_study_is_still_the_same_study(tmp_path):
    plan, transport = stopped(tmp_path, plain, number=5)
    backup(tmp_path / "server", tmp_path / "server.tar")
    run_study(transport, plan=plan, root=tmp_path / "server", resume=True)
    restore(tmp_path / "server.tar", tmp_path / "new")
    run_study(transport, plan=plan, root=tmp_path / "new", resume=True)
    assert digest(tmp_path / "new") == digest(tmp_path / "server")


def test_backups_of_a_running_study_can_all_be_resumed(tmp_path):
    plan, transport = plain(tmp_path)
    study = threading.Thread(target=run_study, args=(transport,), kwargs={"plan": plan, "root": tmp_path / "server"})
    study.start()
    made = []
    while study.is_alive():
        if (tmp_path / "server" / "journal.jsonl").is_file():
            made.append(tmp_path / f"{len(made)}.tar")
            backup(tmp_path / "server", made[-1])
    study.join(60)
    expected = digest(tmp_path / "server")
    assert made
    for path in made[:: max(len(made) // 5, 1)]:
        restore(path, tmp_path / path.stem)
        run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / path.stem, resume=True)
        assert digest(tmp_path / path.stem) == expected


def test_a_spoilt_round_is_left_out_and_the_one_before_it_goes_on(tmp_path):
    plan, transport = stopped(tmp_path, plain, number=6)
    rounds = sorted((tmp_path / "server" / "rounds").iterdir())
    (rounds[-1] / "state.safetensors").write_bytes(b"")
    made = backup(tmp_path / "server", tmp_path / "server.tar")
    assert not [name for name in made.manifest.files if rounds[-1].name in name]
    assert [name for name in made.manifest.files if rounds[-2].name in name]
    restore(tmp_path / "server.tar", tmp_path / "new")
    run_study(transport, plan=plan, root=tmp_path / "new", resume=True)


def test_the_same_content_gives_the_same_bytes(tmp_path):
    stopped(tmp_path, plain, number=5)
    first = backup(tmp_path / "server", tmp_path / "1.tar")
    shutil.copytree(tmp_path / "server", tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (1, 1))
    second = backup(tmp_path / "copy", tmp_path / "2.tar")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert first.sha256 == second.sha256
    assert (tmp_path / "1.tar").stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob(".*"))


def test_a_run_with_its_sites_gives_the_servers_folder_alone(tmp_path):
    stopped(tmp_path, plain, number=5)
    (tmp_path / "sites" / "site-a").mkdir(parents=True)
    (tmp_path / "sites" / "site-a" / "cell.csv").write_text("of one patient")
    out = tmp_path.parent / f"{tmp_path.name}.tar"
    made = backup(tmp_path, out)
    assert (made.manifest.kind, made.manifest.name) == ("server", "toy")
    assert "plan.json" in made.manifest.files
    assert b"of one patient" not in out.read_bytes()


# --- sites and coordinators


def test_of_a_site_keys_books_and_approvals_are_kept_and_no_patient_no_mask_no_noise(tmp_path):
    plan = toy_plan()
    site = site_of(tmp_path, plan)
    site.approve()
    site.ask(EnrolRequest(plan=plan).pack())
    for name in ("masking/epoch.key", "masking/outbox.jsonl", "drawn.jsonl", "drawn.key", "cohort/a", "asked.json"):
        path = site.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("of one patient")
    made = backup(site.root, tmp_path / "site.tar")
    assert set(made.manifest.files) == {
        "site.json",
        "identity.key",
        "identity.pub",
        "ledger.jsonl",
        "ledger.head",
        *(path.relative_to(site.root).as_posix() for path in (site.root / "approvals").iterdir()),
    }
    assert b"of one patient" not in (tmp_path / "site.tar").read_bytes()


def test_an_altered_ledger_is_not_backed_up(tmp_path):
    site = site_of(tmp_path, toy_plan())
    site.approve()
    path = site.root / "ledger.jsonl"
    path.write_text(path.read_text().replace("Dr. A. Lee", "Dr. B. Lee"))
    with pytest.raises(LedgerDamaged):
        backup(site.root, tmp_path / "site.tar")
    assert not (tmp_path / "site.tar").exists()


def test_a_coordinators_folder_comes_back_with_its_keys_to_this_user_alone(tmp_path, capsys):
    (tmp_path / "consortium.yaml").write_text(
        "schema: fairsynth.consortium/1\nname: lungs\nserver: {host: localhost, port: 8443}\n"
        "sites: [{site: boston}, {site: lyon}]\ncertificate_days: 30\n"
    )
    folder, out, to = (str(tmp_path / name) for name in ("consortium", "c.tar", "back"))
    run(capsys, "provision", "init", str(tmp_path / "consortium.yaml"), "--out", folder)
    printed = run(capsys, "backup", folder, "--out", out)
    assert "HOLDS ca.key" in printed.err
    run(capsys, "restore", out, "--to", to)
    names = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
    assert len(names) > 10
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (Path(folder) / name).read_bytes()
        assert (tmp_path / "back" / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o700
    run(capsys, "provision", "show", to)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    return printed


# --- what is refused


def test_a_folder_that_has_something_is_not_restored_into(tmp_path):
    stopped(tmp_path, plain, number=3)
    backup(tmp_path / "server", tmp_path / "server.tar")
    (tmp_path / "new").mkdir()
    restore(tmp_path / "server.tar", tmp_path / "new")  # an empty one
    before = sorted(path.name for path in (tmp_path / "new").iterdir())
    with pytest.raises(ConfigError):
        restore(tmp_path / "server.tar", tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == before


def test_a_backup_is_not_written_into_its_folder_nor_over_another(tmp_path):
    stopped(tmp_path, plain, number=3)
    with pytest.raises(ConfigError):
        backup(tmp_path / "server", tmp_path / "server" / "b.tar")
    (tmp_path / "b.tar").write_text("mine")
    with pytest.raises(ArtefactError):
        backup(tmp_path / "server", tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "mine"


def member(name="files/a", *, size=1, **changes):
    made = tarfile.TarInfo(name)
    made.size = size
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def tar_of(path, members, *, files=("a",), mode="w", manifest=None):
    facts = {"bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}  # of "x"
    text = json.dumps(
        manifest
        or {
            "schema": "fairsynth.backup/1",
            "kind": "server",
            "name": "toy",
            "versions": {},
            "files": dict.fromkeys(files, facts),
        }
    ).encode()
    with tarfile.open(path, mode) as tar:
        tar.addfile(member("manifest.json", size=len(text)), io.BytesIO(text))
        for one in members:
            tar.addfile(one, io.BytesIO(b"x" * one.size))
    return path


NAMES = ("../a", "/a", "a/../../b", "./a", "a//b", "a\\b", "a\nb", "..", "", "a/.", " a", "C:a", "\u202ea")
BAD = {
    "a symbolic link": lambda path: tar_of(path, [member(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0)]),
    "a hard link": lambda path: tar_of(path, [member(type=tarfile.LNKTYPE, linkname="manifest.json", size=0)]),
    "a device": lambda path: tar_of(path, [member(type=tarfile.CHRTYPE, size=0)]),
    "a pipe": lambda path: tar_of(path, [member(type=tarfile.FIFOTYPE, size=0)]),
    "a folder": lambda path: tar_of(path, [member(type=tarfile.DIRTYPE, size=0)]),
    "other content": lambda path: tar_of(path, [member(size=2)]),
    "one file too many": lambda path: tar_of(path, [member(), member("files/b")]),
    "one file twice": lambda path: tar_of(path, [member(), member()]),
    "one file too few": lambda path: tar_of(path, [member()], files=("a", "b")),
    "a file beside the folder": lambda path: tar_of(path, [member(), member("a")]),
    "a second manifest": lambda path: tar_of(path, [member(), member("manifest.json")]),
    "a compressed tar": lambda path: tar_of(path, [member()], mode="w:gz"),
    "no tar": lambda path: path.write_bytes(b"x" * 4096),
    "nothing": lambda path: path.write_bytes(b""),
    "another schema": lambda path: tar_of(path, [member()], manifest={"schema": "fairsynth.backup/2"}),
    **{
        f"the name {name!r}": (lambda path, name=name: tar_of(path, [member(f"files/{name}")], files=(name,)))
        for name in NAMES
    },
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_no_backup_wrote_leaves_nothing(tmp_path, case):
    BAD[case](tmp_path / "b.tar")
    with pytest.raises(ArtefactError):
        restore(tmp_path / "b.tar", tmp_path / "to" / "new")
    assert list((tmp_path / "to").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "to"]


def test_these_files_would_be_restored_if_they_were_sound(tmp_path):
    restore(tar_of(tmp_path / "b.tar", [member()]), tmp_path / "new")
    assert (tmp_path / "new" / "a").read_text() == "x"


def test_more_than_the_caps_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 0)
    with pytest.raises(ArtefactError):
        restore(tar_of(tmp_path / "b.tar", [member()]), tmp_path / "new")
    monkeypatch.setattr(archive, "MOST_BYTES", 10)
    monkeypatch.setattr(archive, "MOST_FILES", 0)
    with pytest.raises(ArtefactError):
        restore(tmp_path / "b.tar", tmp_path / "new")


def test_every_flipped_byte_and_every_cut_is_noticed_or_changes_nothing(tmp_path):
    site = site_of(tmp_path, toy_plan())
    site.approve()
    backup(site.root, tmp_path / "site.tar")
    content = (tmp_path / "site.tar").read_bytes()
    whole = archive.read(tmp_path / "site.tar")
    for place in range(0, len(content), 97):
        spoilt = bytearray(content)
        spoilt[place] ^= 0x41
        (tmp_path / "spoilt.tar").write_bytes(spoilt)
        try:
            assert archive.read(tmp_path / "spoilt.tar").manifest.files == whole.manifest.files
        except FairSynthError:
            continue
    for size in range(0, len(content) - 10_240, 511):
        (tmp_path / "spoilt.tar").write_bytes(content[:size])
        with pytest.raises(ArtefactError):
            archive.read(tmp_path / "spoilt.tar")
