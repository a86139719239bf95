"""Exit 0 when /health answers 200: `health.py ADDRESS PORT`, or with TLS `health.py ADDRESS PORT NAME CA_FILE`.

NAME is the one in the server's certificate, so that a container can ask itself by its loopback address.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import sys


def healthy(address: str, port: int, name: str = "", ca_file: str = "") -> bool:
    """Whether the service at `address` says that it is well."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    if name:
        plain = socket.create_connection((address, port), timeout=5)
        connection.sock = ssl.create_default_context(cafile=ca_file).wrap_socket(plain, server_hostname=name)
    connection.request("GET", "/health")
    return connection.getresponse().status == 200


if __name__ == "__main__":
    where, number, *tls = sys.argv[1:]
    sys.exit(0 if healthy(where, int(number), *tls) else 1)
