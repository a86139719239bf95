"""A whole study in a room without a way out: not one packet is for anything but loopback.

Each control shows that the room would have seen one. `egress_room.py` says what is needed; where it is not to be had,
these tests are skipped, with the reason.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from egress_room import NAMESERVER, in_room, unavailable
from federation_real import ROOT

TCP, UDP = 6, 17
SECONDS = 900  # for a study; it takes one minute where nothing else runs
SITE = "{{site: {name}, config: {config}, simulate: {{source: mimic3, patients: {patients}, seed: {seed}, {mix}}}}}"
STUDY = """schema: fairsynth.study/1
name: room
seed: 5
sites: [{sites}]
groups: {{names: [white, black, hispanic, asian, other], reference: [white]}}
privacy: {{minimum_group: 1}}
generator: {{embedding: 16, layers: 1, heads: 2, maximum_visits: 6}}
training: {{rounds: 1, local_epochs: 1}}
augmentation: {{synthetic_patients: 40}}
audit: {{seeds: 1, predictors: [logistic_regression], bootstrap_replicates: 200}}
"""
START = "from fairsynth.cli import main; main({arguments})"
# Without what `engine/processes.py` sets for every process that it starts: Flower as it comes, or ray alone
WITHOUT = "from fairsynth.federation.engine import processes; [processes._OFF.pop(name) for name in {names}]; "
FLOWER = "list(processes._OFF)"
RAY = "('http_proxy', 'https_proxy', 'all_proxy', 'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER')"


@pytest.fixture(scope="module", autouse=True)
def room():
    """Skip, with the reason, where no room can be had."""
    if unavailable():
        pytest.skip(f"no room without a way out: {unavailable()}")


def python(program: str, *, seconds: float = 20, **changes):
    return in_room((sys.executable, "-c", program), seconds=seconds, environment=without_switches(), **changes)


def without_switches() -> dict[str, str]:
    """This process's environment, without what `make` or a person set for Flower: the code's own switches must do."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FLWR_", "RAY_", "HF_"))}


def study(folder: Path, engine: str) -> str:
    """A program that simulates three sites, runs their masked study and writes its report."""
    sites = ", ".join(
        SITE.format(
            name=f"site-{letter}",
            config=ROOT / "site_configs" / "mimic3",
            patients=220 - 20 * number,
            seed=number + 1,
            mix="mix: study, detail: 0.02",
        )
        for number, letter in enumerate("abc")
    )
    path = folder / "study.yaml"
    path.write_text(STUDY.format(sites=sites), encoding="utf-8")
    return START.format(arguments=["study", str(path), "--out", str(folder / "run"), "--engine", engine])


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.parametrize("engine", ["deployment", "simulation"])
def test_a_study_of_three_sites_sends_nothing_anywhere_and_listens_on_loopback_alone(tmp_path, engine):
    seen = python(study(tmp_path, engine), seconds=SECONDS)
    assert seen.packets == []
    assert seen.listened == []
    assert seen.code == 0
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.parametrize("engine", ["deployment", "simulation"])
def test_the_room_sees_the_same_study_call_home_when_flower_is_as_it_comes(tmp_path, engine):
    seen = python(WITHOUT.format(names=FLOWER) + study(tmp_path, engine), seconds=SECONDS, first=True)
    assert {(packet.protocol, packet.to, packet.port) for packet in seen.packets} == {(UDP, NAMESERVER, 53)}
    assert ".flower.ai" in seen.said


@pytest.mark.slow
@pytest.mark.flower
def test_the_room_sees_ray_ask_for_the_cloud_that_it_runs_in_and_listen_to_the_network_when_it_is_as_it_comes(tmp_path):
    seen = python(WITHOUT.format(names=RAY) + study(tmp_path, "simulation"), seconds=SECONDS, first=True)
    assert (TCP, "169.254.169.254", 80) in {(packet.protocol, packet.to, packet.port) for packet in seen.packets}
    assert seen.listened


# --- controls that need no study -------------------------------------------------------------------------------------

IN_A_DAEMON = (
    "import subprocess, sys; "
    "subprocess.run([sys.executable, '-I', '-c', {program!r}], env={{}}, start_new_session=True)"
)
CONNECT = "import socket; socket.socket().connect_ex(('192.0.2.1', 443))"
DATAGRAM = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'HELLO', ('{to}', {port}))"


@pytest.mark.parametrize(
    "program, protocol, to, port, said",
    [
        (CONNECT, TCP, "192.0.2.1", 443, ""),
        (DATAGRAM.format(to="192.0.2.2", port=123), UDP, "192.0.2.2", 123, "HELLO"),
        (DATAGRAM.format(to="239.1.1.1", port=5353), UDP, "239.1.1.1", 5353, "HELLO"),  # to all on a network
        ("import socket; socket.getaddrinfo('canary.example.org', 443)", UDP, NAMESERVER, 53, "canary.example.org"),
    ],
)
def test_an_attempt_to_leave_is_seen_even_from_a_process_with_no_environment(program, protocol, to, port, said):
    seen = python(IN_A_DAEMON.format(program=program), first=True)
    assert {(packet.protocol, packet.to, packet.port) for packet in seen.packets} == {(protocol, to, port)}
    assert said in seen.said


@pytest.mark.skipif(not Path("/proc/net/if_inet6").is_file(), reason="no IPv6 here")
def test_an_attempt_over_ipv6_is_seen():
    send = "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'HELLO', ('2001:db8::1', 53))"
    assert [(packet.to, packet.port) for packet in python(send).packets] == [("2001:db8::1", 53)]


def test_talk_on_loopback_is_no_attempt_and_what_listens_on_more_is_told():
    talk = "import socket, time; s = socket.create_server(('{host}', 0)); time.sleep(0.5); "
    join = "socket.create_connection(('127.0.0.1', s.getsockname()[1]))"
    inside, wide = (python(talk.format(host=host) + join) for host in ("127.0.0.1", "0.0.0.0"))
    assert inside.code == wide.code == 0
    assert inside.packets == wide.packets == []
    assert inside.listened == []
    assert [local.partition(":")[0] for local in wide.listened] == ["00000000"]
