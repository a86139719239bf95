"""The files that are shipped: sound by their own schemas and programs, and the same in every form."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from importlib.util import find_spec

import pytest
from bare import hashed, write_certificates
from policy import SWITCHES, inline_secrets
from shipped import COMPOSE, MANIFESTS, SHORT, SIDES, TEXTS, compose, manifests, units
from units import DEPLOY, PROGRAMS, UNITS, parsed, variables

from fairsynth.federation.engine.processes import LOOPBACK


def checked(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout + done.stderr


# --- schemas ---------------------------------------------------------------------------------------------------------


def compose_valid(path):
    return checked(PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


@pytest.mark.parametrize("path", COMPOSE, **SHORT)
def test_compose_files_fit_the_compose_specification(path):
    code, said = compose_valid(path)
    assert code == 0, said


def test_the_compose_check_finds_a_misspelt_setting(tmp_path):
    (tmp_path / "compose.yaml").write_text(
        (DEPLOY / "site" / "compose.yaml").read_text().replace("read_only", "readonly")
    )
    code, said = compose_valid(tmp_path / "compose.yaml")
    assert code != 0
    assert "readonly" in said


@pytest.mark.parametrize("path", MANIFESTS, **SHORT)
def test_manifests_fit_kubernetes_own_schema(path):
    code, said = checked(PROGRAMS / "kubernetes-validate", "--strict", path)
    assert code == 0, said
    assert "networkpolicy" in said


def test_the_manifests_check_finds_a_misspelt_setting(tmp_path):
    text = (DEPLOY / "server" / "kubernetes" / "server.yaml").read_text()
    (tmp_path / "server.yaml").write_text(text.replace("readOnlyRootFilesystem", "readonlyRootFilesystem"))
    assert checked(PROGRAMS / "kubernetes-validate", "--strict", tmp_path / "server.yaml")[0] != 0


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


def installed(folder):
    """The units with programs that exist, as systemd's own check wants."""
    for path in UNITS:
        text = re.sub(r"/opt/fairsynth/bin/", f"{PROGRAMS}/", path.read_text())
        (folder / path.name.replace("@.", "@boston.")).write_text(text)
    return sorted(folder.glob("*.service"))


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    code, said = checked("systemd-analyze", "verify", "--man=no", *installed(tmp_path))
    assert (code, said) == (0, "")


@needs_systemd
def test_systemds_check_finds_a_misspelt_setting(tmp_path):
    paths = installed(tmp_path)
    paths[0].write_text(paths[0].read_text().replace("ProtectSystem=", "ProtectSystems="))
    assert "ProtectSystems" in checked("systemd-analyze", "verify", "--man=no", *paths)[1]


@needs_systemd
def test_systemd_rates_every_unit_as_little_exposed(tmp_path):
    code, said = checked("systemd-analyze", "security", "--offline=yes", "--threshold=20", *installed(tmp_path))
    assert code == 0, said
    assert said.count("Overall exposure level") == len(UNITS)


@pytest.fixture
def settings(tmp_path):
    """What the Caddyfile reads from its environment."""
    write_certificates(tmp_path, host=LOOPBACK)
    (tmp_path / "control.users").write_text(f"admin {hashed('x')}\n")
    values = variables(DEPLOY / "server" / "server.env")
    return {**values, "CREDENTIALS_DIRECTORY": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "HOME": str(tmp_path)}


def test_caddy_takes_the_caddyfile_and_would_lay_it_out_no_otherwise(settings):
    path = DEPLOY / "server" / "Caddyfile"
    code, said = checked(PROGRAMS / "caddy", "validate", "--config", path, "--adapter", "caddyfile", env=settings)
    assert code == 0, said
    assert "Valid configuration" in said
    assert checked(PROGRAMS / "caddy", "fmt", path) == (0, path.read_text())


def test_caddy_refuses_a_caddyfile_without_the_administrators_password(settings, tmp_path):
    (tmp_path / "control.users").unlink()
    path = DEPLOY / "server" / "Caddyfile"
    assert checked(PROGRAMS / "caddy", "validate", "--config", path, "--adapter", "caddyfile", env=settings)[0] != 0


@pytest.mark.skipif(find_spec("fairsynth.cli.provision") is None, reason="fairsynth provision is not in this version")
def test_what_units_run_before_their_start_is_a_command_of_this_version():
    before = [dict(parsed(path)["Service"]).get("ExecStartPre", "") for path in UNITS]
    commands = {found[1] for line in before if (found := re.search(r"bin/fairsynth ([a-z]+ [a-z]+) [/%]", line))}
    assert commands == {"provision check"}
    code, said = checked(PROGRAMS / "fairsynth", "provision", "check", "--help")
    assert code == 0, said


# --- what has to be the same everywhere ------------------------------------------------------------------------------


def options(command):
    """The options of a command, without the values that differ between the forms."""
    return {word.partition("=")[0] for word in command if word.startswith("--")} | {
        word.rpartition("/")[2] for word in command if word.startswith(("flower-", "fairsynth.")) or word == command[0]
    }


def test_the_three_forms_start_the_same_commands():
    containers = {
        (side, name): options(service["command"])
        for side in SIDES
        for name, service in compose(side)["services"].items()
    }
    pods = {
        (side, container["name"]): options(container["command"])
        for side in SIDES
        for one in manifests(side)
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert pods == containers
    names = {
        ("server", "superlink"): "fairsynth-superlink",
        ("server", "superexec-serverapp"): "fairsynth-superexec",
        ("server", "proxy"): "fairsynth-proxy",
        ("site", "supernode"): "fairsynth-supernode@",
        ("site", "superexec-clientapp"): "fairsynth-superexec@",
    }
    bare = {key: options(units()[name]["ExecStart"].replace('"', "").split()) for key, name in names.items()}
    assert bare == containers


def test_the_superlink_asks_for_keys_and_installs_nothing():
    needed = {"--enable-supernode-auth", "--superexec-auth-secret-file", "--disable-runtime-dependency-installation"}
    for side, name in (("server", "superlink"),):
        assert needed | {"--database", "--ssl-keyfile"} <= options(compose(side)["services"][name]["command"])
    assert "--isolation=process" in units()["fairsynth-superlink"]["ExecStart"]
    assert "--isolation=process" in units()["fairsynth-supernode@"]["ExecStart"]


def test_a_supernode_that_gives_up_ends_so_that_its_service_starts_it_again():
    assert {"fairsynth.operations.ending", "flower-supernode"} <= options(
        compose("site")["services"]["supernode"]["command"]
    )


def test_the_off_switches_are_off_and_the_same_on_both_sides_and_in_the_images():
    server, site = (variables(DEPLOY / side / "flower.env") for side in SIDES)
    assert server == site
    assert {name: server[name] for name in SWITCHES} == SWITCHES
    for side in SIDES:
        image = (DEPLOY / side / "Dockerfile").read_text()
        assert all(f"{name}={value}" in image for name, value in SWITCHES.items())


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_no_file_has_a_secret_in_it(path):
    assert inline_secrets(path.read_text()) == []


def test_the_search_for_secrets_finds_them(tmp_path):
    write_certificates(tmp_path, host=LOOPBACK)
    assert inline_secrets((tmp_path / "server.key").read_text())
    assert inline_secrets(f"admin {hashed('x')}")
    assert inline_secrets("secret: " + 8 * "0a1b2c3d")


@pytest.mark.parametrize("side", SIDES)
def test_images_are_built_from_a_named_version_by_hashes_and_end_as_nobody(side):
    text = (DEPLOY / side / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]
    (default,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", text, re.MULTILINE)
    assert re.search(r":3\.\d+-slim", default)
    installs = [
        line for line in text.replace("\\\n", "").splitlines() if "pip install" in line and line.startswith("RUN")
    ]
    assert len(installs) == 2
    assert all("--require-hashes" in line or "--no-index --no-deps" in line for line in installs)
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "10001:10001"
    assert not re.search(r"\b(curl|wget|apt-get|ADD|latest)\b", text)


def test_the_proxys_program_is_the_one_that_is_tested():
    (line,) = (DEPLOY / "server" / "caddy.lock").read_text().splitlines()
    name, _, version = line.split()[0].partition("==")
    assert version == importlib.metadata.version(name)
