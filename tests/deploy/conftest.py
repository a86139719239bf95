from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "federation"))

from bare import Bare

from fairsynth.federation.engine.processes import Workshop


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that runs, with its proxy in front."""
    with Bare(host=tmp_path_factory.mktemp("server")) as bare:
        bare.start_server()
        yield bare


@pytest.fixture(scope="module")
def desk(server):
    """The coordinator's `flwr`, with the way through the proxy."""
    with Workshop(threads=1) as workshop:
        server.connect(workshop)
        yield workshop
