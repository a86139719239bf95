"""A TCP proxy on loopback whose wire can be cut, held, slowed and repeated while it carries a connection.

It sees bytes, not messages: what it carries is TLS.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

LOOPBACK = "127.0.0.1"
UP, DOWN = "up", "down"  # to the server, to the client
_PART = 1 << 16


class Wire:
    """Listens on `port`, connects to port `target`; use as a context manager.

    `hold` stops bytes of a direction as a dead link does: connections stay open, nothing arrives until `release`.
    `cut` closes all connections and refuses new ones until `mend`. `rate` is a cap in bytes a second.
    """

    def __init__(self) -> None:
        self.target = 0  # a port, once it is known
        self.rate: float | None = None
        self.delay = 0.0
        self.carried = {UP: 0, DOWN: 0}
        self.recorded = bytearray()  # what a connection sent to the server first
        self._flows = {UP: threading.Event(), DOWN: threading.Event()}
        for flow in self._flows.values():
            flow.set()
        self._whole = True
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self.release()
        self._listener.close()

    def hold(self, *directions: str) -> None:
        for direction in directions or (UP, DOWN):
            self._flows[direction].clear()

    def release(self) -> None:
        for flow in self._flows.values():
            flow.set()

    def cut(self) -> None:
        self._whole = False
        for one in self._open:
            _closed(one)
        self._open.clear()

    def mend(self) -> None:
        self._whole = True

    def replay(self) -> bytes:
        """Send what a connection sent first once more, on a new connection; what the server says to it."""
        with socket.create_connection((LOOPBACK, self.target), timeout=5) as again:
            again.sendall(bytes(self.recorded))
            again.settimeout(3)
            said = b""
            with contextlib.suppress(OSError):
                while part := again.recv(_PART):
                    said += part
        return said

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                _refused(client)
                continue
            try:
                server = socket.create_connection((LOOPBACK, self.target), timeout=5)
            except OSError:
                _refused(client)
                continue
            server.settimeout(None)
            self._open += [client, server]
            threading.Thread(target=self._carry, args=(client, server, UP), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, DOWN), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        first = bytearray()
        with contextlib.suppress(OSError):
            while part := source.recv(_PART):
                if direction == UP and len(first) < 4 * _PART:
                    first += part
                    self.recorded = max(self.recorded, first, key=len)
                if self.delay:
                    time.sleep(self.delay)
                if self.rate:
                    time.sleep(len(part) / self.rate)
                self._flows[direction].wait()
                sink.sendall(part)
                self.carried[direction] += len(part)
        _closed(source)
        _closed(sink)


def _refused(one: socket.socket) -> None:
    """End a connection as a port does where nobody listens: with a reset."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def _closed(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
