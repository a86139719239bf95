"""The doctor connects to the server of connection.json and to loopback, opens no port, and needs no root.

Once in a room without a way out, where each packet that leaves is read; once with each `connect` of the process told.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_stories import change

sys.path.append(str(Path(__file__).resolve().parents[1] / "federation"))

from egress_room import NAMESERVER, in_room, unavailable

TCP, UDP = 6, 17
COMMAND = "from fairsynth.cli import main; main(['doctor', {site!r}, '--json', '--supernode-port', '9'])"
TOLD = """
import json, os, sys
capabilities = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
told = [["user", [os.geteuid(), *capabilities]]]
def hear(event, arguments):
    if event == "socket.connect":
        to = arguments[1]
        told.append(["connect", list(map(str, to[:2])) if isinstance(to, tuple) else str(to)])
    elif event in ("socket.bind", "socket.sendto", "subprocess.Popen", "os.exec", "os.posix_spawn"):
        told.append([event, repr(arguments[1:])])
sys.addaudithook(hear)
try:
    {command}
except SystemExit as stopped:
    sys.stderr.write(json.dumps([stopped.code, told]) + "\\n")
"""
ORDINARY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
PROXIES = {
    "HTTPS_PROXY": "http://192.0.2.9:3128",
    "https_proxy": "http://192.0.2.9:3128",
    "http_proxy": "http://192.0.2.9:3128",
}


def run(site, *, environment=None, before=()):
    """Exit code, what the process did with sockets and programs, and the doctor's report."""
    program = TOLD.format(command=COMMAND.format(site=str(site)))
    done = subprocess.run(
        (*before, sys.executable, "-c", program),
        capture_output=True,
        text=True,
        env=dict(os.environ) | (environment or {}),
        check=False,
    )
    code, told = json.loads(done.stderr.strip().splitlines()[-1])
    return code, told, json.loads(done.stdout)


def test_each_connection_is_to_the_server_or_to_this_sites_supernode(site, server):
    change(site / "connection.json", host="127.0.0.1")
    code, told, report = run(site, environment=PROXIES)
    assert (code, report["failed"]) == (0, 0)
    connections = [tuple(one) for kind, one in told if kind == "connect"]
    assert set(connections) == {("127.0.0.1", str(server.port)), ("127.0.0.1", "9")}
    assert [one for one in told if one[0] not in ("user", "connect")] == []  # no port, no datagram, no program


@pytest.mark.skipif(bool(unavailable()), reason=f"no room without a way out: {unavailable()}")
@pytest.mark.parametrize("host", ["192.0.2.7", "server.example.org"])
def test_no_packet_is_for_anybody_else(host, site):
    change(site / "connection.json", host=host, port=8443)
    command = (sys.executable, "-c", COMMAND.format(site=str(site)))
    seen = in_room(command, seconds=120, environment=dict(os.environ) | PROXIES)
    assert seen.code == 2  # the server cannot be reached
    assert seen.listened == []
    towards = {(one.protocol, one.to, one.port) for one in seen.packets}
    if host == "192.0.2.7":
        assert towards == {(TCP, host, 8443)}
    else:
        assert towards == {(UDP, NAMESERVER, 53)}  # the machine's own resolver, for the server's name alone
        assert all("example" in one.said for one in seen.packets)


def test_it_needs_no_root(site, server):
    """All is well in a namespace where the process is an ordinary user without a single capability."""
    if subprocess.run((*ORDINARY, "true"), check=False, capture_output=True).returncode:
        pytest.skip("no user namespace can be made here")
    change(site / "connection.json", host="127.0.0.1")
    code, told, report = run(site, before=ORDINARY)
    assert (code, report["failed"]) == (0, 0)
    assert told[0] == ["user", [1000, "0000000000000000"]]
