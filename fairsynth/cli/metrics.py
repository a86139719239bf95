"""`fairsynth metrics`: a server's or a site's status for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import start_http_server, write_to_textfile

from fairsynth.cli.console import output
from fairsynth.errors import ConfigError, EngineError
from fairsynth.operations.metrics import LOOPBACK, PORT, parse_listen, registry_of


def run(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run or its server's folder, or a site's.")],
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help=f"Serve /metrics there.  [default: {LOOPBACK}:{PORT}]")
    ] = None,
    textfile: Annotated[
        Path | None, typer.Option(help="Write them to this file once, for node_exporter, and end.")
    ] = None,
) -> None:
    """Serve metrics of a study or of a site until stopped, or write them to a file once. The folder is read each time.

    The page has no password: it listens on loopback unless another host is named. Run it as the user of the folder.

    Example: `fairsynth metrics runs/lungs --listen 127.0.0.1:9108`
    """
    if listen and textfile:
        raise ConfigError.of("options that do not go together", where="--listen, --textfile", expected="one of them")
    registry = registry_of(folder)
    if textfile:
        if not textfile.parent.is_dir():
            raise ConfigError.of("missing folder", where=str(textfile.parent), do="make it, or correct --textfile")
        write_to_textfile(str(textfile), registry)
        return
    host, port = parse_listen(listen or str(PORT))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError:
        raise EngineError.of("cannot listen", where=f"{host}:{port}", do="another --listen") from None
    output.print(f"http://{host}:{port}/metrics", highlight=False, soft_wrap=True)
    try:
        thread.join()
    finally:
        server.shutdown()
        server.server_close()
