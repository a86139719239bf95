"""Sites that have joined a consortium, and servers on loopback with certificates of every kind."""

import shutil
import sys
from pathlib import Path

import pytest
import trustme

sys.path.extend(str(Path(__file__).resolve().parents[1] / peer) for peer in ("governance", "federation"))

from doctor_stories import Stand, join, make_site

from fairsynth.provisioning.connection import Connection


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No proxy and no FLWR_HOME of whoever runs the tests."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "FLWR_HOME"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A site's folder as it is before it joins: simulated tables, configuration, policy. Copied for each test."""
    return make_site(tmp_path_factory.mktemp("sound") / "site")


@pytest.fixture(scope="session")
def authority():
    """The consortium's CA."""
    return trustme.CA(organization_name="Consortium", organization_unit_name="CA")


@pytest.fixture(scope="session")
def server(authority):
    """A server as it should be."""
    with Stand(authority.issue_cert("localhost", "127.0.0.1")) as stand:
        yield stand


@pytest.fixture
def site(sound, tmp_path, authority, server):
    """A site that has joined `server`, all of it as it should be."""
    root = Path(shutil.copytree(sound, tmp_path / "site"))
    join(root, port=server.port, authority=authority)
    return root


@pytest.fixture
def connection(server):
    return Connection.model_validate(
        {
            "schema": "fairsynth.connection/1",
            "consortium": "toys",
            "site": "boston",
            "host": "localhost",
            "port": server.port,
            "granted": "2026-11-28T00:00:00+00:00",
            "serial": 1,
        }
    )
