"""A room without a way out: a command in namespaces of its own, where each packet that is not for loopback is read.

In:  a command.   Out: how it ended, where its packets wanted to go, what listened on more than loopback.
Never: a packet on a real network. Its only route leads to a TUN device that this module reads and answers nothing from,
so no library has to be trusted to tell: gRPC's C core, ray's C++ and Python's sockets all send through it. The
nameserver is behind the device too, and `/run` is empty, so that no resolver or service outside can be asked.

Needs Linux, `unshare`, `ip`, and the right to make namespaces and to open /dev/net/tun: see `unavailable`.
"""

from __future__ import annotations

import fcntl
import functools
import ipaddress
import json
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

DEVICE = "out0"
NAMESERVER = "10.231.0.1"
LOOPBACK_HEX = re.compile(r"[0-9A-F]{6}7F|0{24}01000000|0{16}FFFF0000[0-9A-F]{6}7F")
UNSHARE = ("unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
GRACE_SECONDS = 0.5  # after the command: what is still on its way
_TUNSETIFF, _TUN, _NO_HEADER = 0x400454CA, 0x0001, 0x1000
_NAMES = 53
_ICMPV6, _HOP_BY_HOP, _LISTENING = 58, 0, "0A"
_KERNELS_OWN = {133, 135, 143}  # router and neighbour solicitation, multicast report: IPv6 greets each new device


@dataclass(frozen=True, kw_only=True)
class Packet:
    """Where a packet wanted to go."""

    protocol: int  # 6 TCP, 17 UDP
    to: str
    port: int  # 0 where the protocol has none
    said: str  # printable characters at its beginning: of a question to a nameserver, the name


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What happened in the room."""

    code: int | None  # the command's exit code; None: it was stopped
    packets: list[Packet]  # the first to each destination
    listened: list[str]  # address and port of each TCP socket that listened on more than loopback, as /proc has them

    @property
    def said(self) -> str:
        return " ".join(packet.said for packet in self.packets)


@functools.cache
def unavailable() -> str:
    """Why no room can be opened here; empty where one can."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"there is no `{program}` here"
    done = _run((sys.executable, "-c", ""), seconds=30, environment=dict(os.environ))
    if isinstance(done, Seen):
        return ""
    return f"no network namespace with a TUN device can be made here: {done}"


def in_room(
    command: tuple[str, ...], *, seconds: float, environment: dict[str, str] | None = None, first: bool = False
) -> Seen:
    """What happened when `command` ran in a room of its own, with this process's environment and files.

    `first`: it is stopped shortly after its first packet. Every process that it started ends with it.
    """
    seen = _run(command, seconds=seconds, environment=environment or dict(os.environ), first=first)
    if isinstance(seen, str):
        raise RuntimeError(f"no room: {seen}")
    return seen


def _run(command: tuple[str, ...], *, seconds: float, environment: dict[str, str], first: bool = False) -> Seen | str:
    """What was seen, or the last line of why there was no room."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "seen.json"
        room = (
            *UNSHARE,
            sys.executable,
            str(Path(__file__).resolve()),
            str(report),
            str(seconds),
            str(first),
            *command,
        )
        done = subprocess.run(room, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if not report.is_file():
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else f"exit code {done.returncode}"
        found = json.loads(report.read_text(encoding="utf-8"))
    sys.stderr.write(done.stderr.decode(errors="replace"))
    return Seen(
        code=found["code"], packets=[Packet(**packet) for packet in found["packets"]], listened=found["listened"]
    )


# --- inside the room -------------------------------------------------------------------------------------------------


def main(report: str, seconds: str, first: str, *command: str) -> None:
    """Furnish the room, run the command in it, and write what was seen to `report`."""
    tunnel = furnish(Path(report).parent)
    seen = watch(tunnel, command, deadline=time.monotonic() + float(seconds), first=first == "True")
    partial = Path(f"{report}.part")
    partial.write_text(json.dumps(asdict(seen)), encoding="utf-8")
    partial.rename(report)


def furnish(folder: Path) -> int:
    """Loopback, a device that every other route leads to, a nameserver behind it, no sockets of services outside."""
    tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _TUN | _NO_HEADER))
    _ip("link", "set", "lo", "up")
    _ip("address", "add", "10.231.0.2/24", "dev", DEVICE)
    _ip("link", "set", DEVICE, "up")
    _ip("route", "add", "default", "dev", DEVICE)
    if Path("/proc/net/if_inet6").is_file():
        _ip("-6", "address", "add", "fd00:f5::2/64", "dev", DEVICE, "nodad")
        _ip("-6", "route", "add", "default", "dev", DEVICE)
    subprocess.run(("mount", "-t", "tmpfs", "none", "/run"), check=True)
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {NAMESERVER}\noptions timeout:1 attempts:1\n", encoding="ascii")
    place = Path("/etc/resolv.conf").resolve()
    if not place.exists():  # a link into /run
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    subprocess.run(("mount", "--bind", str(resolver), str(place)), check=True)
    return tunnel


def watch(tunnel: int, command: tuple[str, ...], *, deadline: float, first: bool) -> Seen:
    """Run `command`, and note the first packet to each destination until shortly after the end."""
    packets: dict[tuple[int, str, int, str], Packet] = {}
    listened: set[str] = set()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    end = None
    while end is None or time.monotonic() < end:
        if select.select([tunnel], [], [], 0.1)[0]:
            packet = describe(os.read(tunnel, 1 << 16))
            if packet:
                packets.setdefault((packet.protocol, packet.to, packet.port, packet.said), packet)
        listened |= listening()
        over = process.poll() is not None or time.monotonic() > deadline or (first and packets)
        if end is None and over:
            end = time.monotonic() + GRACE_SECONDS
    return Seen(code=process.returncode, packets=list(packets.values()), listened=sorted(listened))


def describe(content: bytes) -> Packet | None:
    """The packet (IP, of RFC 791 or RFC 8200) in `content`; None of what the kernel's IPv6 says by itself."""
    if content[0] >> 4 == 4:
        protocol, to, body = content[9], content[16:20], content[4 * (content[0] & 15) :]
    else:
        protocol, to, body = content[6], content[24:40], content[40:]
        if protocol == _HOP_BY_HOP:
            protocol, body = body[0], body[8 * (body[1] + 1) :]
        if protocol == _ICMPV6 and body[0] in _KERNELS_OWN:
            return None
    port = int.from_bytes(body[2:4], "big") if protocol in (6, 17) else 0
    start = 20 if port == _NAMES else 8  # after the header of UDP, and that of a question for a name
    said = re.sub(rb"[^ -~]+", b".", body[start : start + 160]).decode("ascii") if protocol == 17 else ""
    return Packet(protocol=protocol, to=str(ipaddress.ip_address(to)), port=port, said=said)


def listening() -> set[str]:
    """TCP sockets of the room that listen on an address that is not loopback, as the kernel writes it."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).is_file():
            continue
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == _LISTENING and not LOOPBACK_HEX.fullmatch(local.partition(":")[0]):
                found.add(local)
    return found


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
