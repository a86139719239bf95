"""Every form of the deployment keeps to the policy of `policy.py`, and each of its checks finds a changed copy."""

from __future__ import annotations

import copy

import pytest
from policy import compose_problems, kubernetes_problems, unit_problems
from shipped import SIDES, compose, manifests, units


@pytest.mark.parametrize("side", SIDES)
def test_containers_keep_to_the_policy(side):
    assert compose_problems(compose(side), side=side) == []


@pytest.mark.parametrize("side", SIDES)
def test_manifests_keep_to_the_policy(side):
    assert kubernetes_problems(manifests(side), side=side) == []


@pytest.mark.parametrize("name", units())
def test_units_keep_to_the_policy(name):
    assert unit_problems(name, units()[name]) == []


def change(tree, path, value):
    """Set, or with `...` remove, one value of a tree."""
    *steps, last = path
    for step in steps:
        tree = tree[step]
    if value is ...:
        del tree[last]
    else:
        tree[last] = value


SERVICES = {"server": ("superlink", "superexec-serverapp", "proxy"), "site": ("supernode", "superexec-clientapp")}
OF_A_SERVICE = (
    (("read_only",), False, "can be written"),
    (("user",), "0:0", "root"),
    (("user",), ..., "root"),
    (("cap_drop",), ["NET_RAW"], "capabilities"),
    (("cap_add",), ["SYS_ADMIN"], "capabilities"),
    (("privileged",), True, "privileged"),
    (("security_opt",), [], "privileges"),
    (("network_mode",), "host", "namespace"),
    (("image",), "fairsynth", "pinned"),
    (("image",), "fairsynth:latest", "pinned"),
    (("image",), "${IMAGE:-registry:5000/fairsynth}", "pinned"),
    (("pull_policy",), "always", "pinned"),
    (("deploy", "resources"), {}, "limits"),
    (("restart",), "no", "restarts"),
    (("deploy", "restart_policy", "delay"), "1s", "restarts"),
    (("stop_grace_period",), "1s", "good-bye"),
    (("ulimits",), {}, "core dump"),
    (("environment",), {"FLWR_TELEMETRY_ENABLED": "1"}, "off switch"),
    (("environment",), {"SUPEREXEC_SECRET": "x"}, "secret"),
    (("volumes",), ["/var/run/docker.sock:/var/run/docker.sock"], "mounts"),
    (("volumes",), ["${DATA:?folder}:/data"], "/data can be written"),
    (("volumes",), ["a:/a", "b:/b"], "more than one"),
)


@pytest.mark.parametrize("path, value, problem", OF_A_SERVICE)
@pytest.mark.parametrize("side, name", [(side, name) for side, names in SERVICES.items() for name in names])
def test_a_container_that_leaves_the_policy_is_found(side, name, path, value, problem):
    tree = copy.deepcopy(compose(side))
    change(tree, ("services", name, *path), value)
    assert any(found.startswith(f"{name}: ") and problem in found for found in compose_problems(tree, side=side))


@pytest.mark.parametrize(
    "side, path, value, problem",
    [
        ("site", ("services", "supernode", "env_file"), [], "supernode: off switches"),
        ("server", ("services", "superlink", "env_file"), ["other.env"], "superlink: off switches"),
        ("site", ("services", "supernode", "ports"), ["9094:9094"], "supernode: publishes"),
        ("site", ("services", "superexec-clientapp", "ports"), ["80"], "superexec-clientapp: publishes"),
        ("server", ("services", "superlink", "ports"), ["8000:8000"], "superlink: publishes"),
        ("site", ("services", "superexec-clientapp", "networks"), ["inside", "outbound"], "clientapp: has a way out"),
        ("site", ("networks", "inside"), {}, "superexec-clientapp: has a way out"),
        ("site", ("services", "superexec-clientapp", "dns"), ["192.0.2.1"], "name server"),
        ("server", ("networks", "inside", "internal"), False, "superlink: has a way out"),
        ("site", ("secrets", "supernode.key"), {"environment": "KEY"}, "secret supernode.key"),
    ],
)
def test_a_way_in_or_out_that_the_policy_does_not_have_is_found(side, path, value, problem):
    tree = copy.deepcopy(compose(side))
    change(tree, path, value)
    assert any(problem in found for found in compose_problems(tree, side=side))


POD, FIRST = ("spec", "template", "spec"), ("spec", "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    "path, value, problem",
    [
        (("spec", "replicas"), 2, "twice"),
        (("spec", "strategy"), {"type": "RollingUpdate"}, "twice"),
        ((*POD, "automountServiceAccountToken"), ..., "token"),
        ((*POD, "hostNetwork"), True, "host"),
        ((*POD, "volumes", 0), {"name": "x", "hostPath": {"path": "/"}}, "host"),
        ((*POD, "securityContext", "runAsNonRoot"), ..., "root"),
        ((*POD, "securityContext", "runAsUser"), 0, "root"),
        ((*POD, "securityContext", "seccompProfile"), ..., "seccomp"),
        ((*POD, "terminationGracePeriodSeconds"), 0, "good-bye"),
        ((*FIRST, "securityContext", "privileged"), True, "hardened"),
        ((*FIRST, "securityContext", "readOnlyRootFilesystem"), False, "hardened"),
        ((*FIRST, "securityContext", "capabilities"), {"drop": []}, "hardened"),
        ((*FIRST, "securityContext"), ..., "hardened"),
        ((*FIRST, "image"), "registry.example.org/fairsynth:latest", "pinned"),
        ((*FIRST, "resources", "limits"), {}, "limits"),
        ((*FIRST, "envFrom"), [], "off switches"),
        ((*FIRST, "env"), [{"name": "SECRET", "value": "x"}], "secret"),
        ((*FIRST, "volumeMounts"), [{"name": "data", "mountPath": "/data"}], "can be written"),
        (("metadata", "name"), "other", "no network policy"),
    ],
)
@pytest.mark.parametrize("side", SIDES)
def test_a_manifest_that_leaves_the_policy_is_found(side, path, value, problem):
    documents = copy.deepcopy(manifests(side))
    for one in documents:
        if one["kind"] == "Deployment":
            change(one, path, value)
            break
    assert any(problem in found for found in kubernetes_problems(documents, side=side))


@pytest.mark.parametrize(
    "side, kind, name, path, value, problem",
    [
        ("site", "Service", "fairsynth-supernode", ("spec", "type"), "NodePort", "publishes"),
        ("server", "Service", "fairsynth-server", ("spec", "ports", 0, "port"), 8000, "another port"),
        ("server", "NetworkPolicy", "fairsynth-server", ("spec", "ingress"), [{}], "other than its own"),
        ("server", "NetworkPolicy", "fairsynth-server", ("spec", "egress"), [{}], "other than its own"),
        ("site", "NetworkPolicy", "fairsynth-superexec", ("spec", "egress", 0, "to"), [], "other than its own"),
        ("site", "NetworkPolicy", "fairsynth-superexec", ("spec", "policyTypes"), ["Ingress"], "no network policy"),
        ("site", "NetworkPolicy", "fairsynth-supernode", ("spec", "ingress", 0, "from"), [], "other than its own"),
        (
            "site",
            "NetworkPolicy",
            "fairsynth-supernode",
            ("spec", "egress", 0, "to", 0, "ipBlock", "cidr"),
            "0.0.0.0/0",
            "other than its own",
        ),
        ("server", "ConfigMap", "fairsynth-server", ("kind",), "Secret", "secret in a manifest"),
    ],
)
def test_a_network_that_leaves_the_policy_is_found(side, kind, name, path, value, problem):
    documents = copy.deepcopy(manifests(side))
    (one,) = [one for one in documents if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    change(one, path, value)
    assert any(problem in found for found in kubernetes_problems(documents, side=side))


OF_A_UNIT = (
    ("User", "root", "root"),
    ("User", ..., "root"),
    ("NoNewPrivileges", "no", "NoNewPrivileges"),
    ("CapabilityBoundingSet", "CAP_SYS_ADMIN", "CapabilityBoundingSet"),
    ("ProtectSystem", "full", "ProtectSystem"),
    ("UMask", "0022", "UMask"),
    ("LimitCORE", ..., "LimitCORE"),
    ("RestartSec", "1", "RestartSec"),
    ("MemoryMax", ..., "limits"),
    ("Environment", "FLWR_TELEMETRY_ENABLED=1", "off switch"),
    ("ReadWritePaths", "/srv", "more than one"),
    ("StateDirectory", "a b", "more than one"),
    ("ExecStart", "/opt/fairsynth/bin/x --key=/etc/fairsynth/server/server.key", "credential"),
    ("ExecStart", "/opt/fairsynth/bin/x --insecure --runtime-api-address=192.0.2.1:9094", "without TLS"),
)


@pytest.mark.parametrize("key, value, problem", OF_A_UNIT)
@pytest.mark.parametrize("name", units())
def test_a_unit_that_leaves_the_policy_is_found(name, key, value, problem):
    service = units()[name]
    change(service, (key,), value)
    assert any(problem in found for found in unit_problems(name, service))


def test_a_unit_with_a_way_out_or_without_the_off_switches_is_found():
    for name, service in units().items():
        if "IPAddressDeny" in service:
            assert any("way out" in one for one in unit_problems(name, {**service, "IPAddressDeny": ""}))
            assert any("way out" in one for one in unit_problems(name, {**service, "IPAddressAllow": "any"}))
        if "flower" in service["ExecStart"]:
            found = unit_problems(name, {**service, "EnvironmentFile": "/etc/fairsynth/server.env"})
            assert any("off switches" in one for one in found)
