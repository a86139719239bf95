"""The machine and the installed packages: each check is shown to warn and to fail."""

import resource
import subprocess
import sys

import pytest
import torch

from fairsynth.operations import checks_machine as machine
from fairsynth.operations import checks_software as software

GIB = 1 << 30


def usage(free):
    return lambda _: type("Usage", (), {"free": free})()


@pytest.mark.parametrize(("free", "state"), [(5 * GIB, "ok"), (3 * GIB, "warning"), (GIB, "failed")])
def test_disk_is_held_to_the_tables(free, state, tmp_path, monkeypatch):
    data = tmp_path / "raw"
    data.mkdir()
    with (data / "LABEVENTS.csv").open("wb") as handle:
        handle.truncate(2 * GIB)  # sparse: takes no room
    assert machine.disk_needed(data) == 4 * GIB
    monkeypatch.setattr(machine.shutil, "disk_usage", usage(free))
    found = machine.disk_finding(tmp_path, data)
    assert (found.state, "4.0 GiB wanted" in found.said) == (state, True)


def test_packed_tables_count_more(tmp_path):
    (tmp_path / "LABEVENTS.csv.gz").write_bytes(b"\0" * 1000)
    (tmp_path / "PATIENTS.csv").write_bytes(b"\0" * 1000)
    assert machine.disk_needed(tmp_path) == 2 * GIB + 5000 + 1000


@pytest.mark.parametrize(
    ("available", "limit", "state"),
    [(8, None, "ok"), (3, None, "warning"), (1, None, "failed"), (8, 1, "failed"), (8, 16, "ok")],
)
def test_memory_is_what_is_available_or_what_a_container_allows(available, limit, state, tmp_path):
    meminfo, most = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable:   {available * 1024 * 1024} kB\n")
    most.write_text("max\n" if limit is None else f"{limit * GIB}\n")
    assert machine.memory_finding(meminfo, (most, tmp_path / "none")).state == state


def test_memory_that_cannot_be_read_is_no_failure(tmp_path):
    assert machine.memory_finding(tmp_path / "none", ()).state == "ok"


def test_core_dumps_are_a_warning(tmp_path):
    pattern = tmp_path / "core_pattern"
    pattern.write_text("|/usr/bin/collector %p\n")
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if before[1] == 0:
        pytest.skip("core dumps cannot be switched on here")
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (4096, before[1]))
        found = machine.cores_finding(pattern)
        assert (found.state, "handed to a program" in found.said) == ("warning", True)
        resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
        assert machine.cores_finding(pattern).state == "ok"
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def test_swap_on_disk_is_noted(tmp_path):
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100\n")
    assert machine.swap_finding(swaps).said == "none on disk"
    swaps.write_text("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    found = machine.swap_finding(swaps)
    assert (found.state, "encrypted" in found.do) == ("ok", True)


def test_temporary_files_on_another_file_system_are_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
    assert machine.temporary_finding(tmp_path).state == "ok"
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: "/proc")
    found = machine.temporary_finding(tmp_path)
    assert (found.state, "TMPDIR" in found.do) == ("warning", True)


def test_flowers_home_is_writable_by_this_user_alone(tmp_path):
    assert machine.flower_home_finding({}).state == "ok"
    tmp_path.chmod(0o700)
    assert machine.flower_home_finding({"FLWR_HOME": str(tmp_path)}).state == "ok"
    tmp_path.chmod(0o777)
    assert machine.flower_home_finding({"FLWR_HOME": str(tmp_path)}).state == "failed"
    assert machine.flower_home_finding({"FLWR_HOME": str(tmp_path / "none")}).state == "failed"


def test_one_processor_is_a_warning(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert machine.processors_finding().state == "warning"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_named():
    assert "usable by torch" in machine.gpu_finding().said


def test_no_gpu_is_no_failure():
    assert machine.gpu_finding().state == "ok"


# --- software


def test_the_installed_packages_fit():
    found = software.versions_finding()
    assert (found.state, "flwr 1.41." in found.said) == ("ok", True)


@pytest.mark.parametrize(("name", "version"), [("flwr", "1.42.0"), ("torch", "2.12.1"), ("cryptography", "")])
def test_a_package_out_of_its_range_fails(name, version, monkeypatch):
    real = software._version
    monkeypatch.setattr(software, "_version", lambda one: version if one == name else real(one))
    found = software.versions_finding()
    assert (found.state, name in found.said) == ("failed", True)


def test_versions_of_the_server_are_compared_as_far_as_they_are_known():
    here = software.versions_here()
    assert software.equal_finding(here).state == "ok"
    unknown = software.equal_finding({})
    assert (unknown.state, "not compared" in unknown.said) == ("skipped", True)
    assert f"flwr {here['flwr']}" in unknown.said
    partly = software.equal_finding({"flwr": here["flwr"]})
    assert (partly.state, "not told by the server: fairsynth, numpy, polars, torch, python" in partly.said) == (
        "ok",
        True,
    )
    assert software.equal_finding(here | {"torch": "2.12.0"}).state == "warning"
    for name in ("flwr", "fairsynth"):
        other = software.equal_finding(here | {name: "0.0.1"})
        assert (other.state, f"{name} {here[name]} here, 0.0.1 there" in other.said) == ("failed", True)


@pytest.mark.parametrize("layout", ["server/__init__.py", "client.py"])
def test_another_package_of_the_apps_name_is_told(layout, tmp_path):
    path = tmp_path / layout
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    name = path.stem if path.stem != "__init__" else path.parent.name
    found = software.app_finding([str(tmp_path)])
    assert (found.state, f"{name} in {tmp_path}" in found.said) == ("warning", True)
    found = software.app_finding([str(tmp_path)], imported=("server", "client"))
    assert (found.state, f"named {name} is imported" in found.said) == ("failed", True)


def test_a_folder_that_is_no_package_does_not_count(tmp_path):
    (tmp_path / "server").mkdir()
    assert software.app_finding([str(tmp_path)]).state == "ok"


def test_the_apps_own_packages_in_a_development_installation_do_not_count():
    """`fairsynth`, `server` and `client` lie side by side there."""
    from fairsynth.operations.checks_software import fairsynth

    own = str(fairsynth.__path__[0].rpartition("/")[0])
    assert software.app_finding([own]).state == "ok"


def test_the_folder_where_a_command_is_typed_is_not_searched(tmp_path):
    (tmp_path / "server.py").write_text("")
    program = "from fairsynth.operations import checks_software as s; print(s.app_finding(s.search_path()).state)"
    done = subprocess.run((sys.executable, "-c", program), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ok"
