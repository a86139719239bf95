"""What every form of the deployment has to keep to, as checks that name what is wrong.

In:  parsed compose files, manifests and units of one side (`server` or `site`).   Out: problems; none when all is well.
Never: a check that only looks whether a key is there where its value decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Tree = Mapping[str, Any]

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
SECRET_NAME = re.compile(r"password|secret|token|private|credential", re.IGNORECASE)
SECRET_TEXT = re.compile(r"-----BEGIN|\$2[aby]\$|(?<!sha256:)\b[0-9a-f]{32,}\b|\b[A-Za-z0-9+/]{43}=")
DATA = ("/data", "/config")  # what a site's container must not be able to write
DELAY, GRACE = 10, 10  # seconds


def is_flower(command: Iterable[str]) -> bool:
    return any(Path(word).name.startswith("flower-") for word in command)


def pinned(image: str) -> bool:
    """Whether an image has a digest, or a tag that is a version."""
    image = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", image)
    name, _, tag = image.rpartition("/")[2].partition(":")
    return "@sha256:" in image or bool(name and re.match(r"v?\d+\.\d+", tag))


def seconds(text: str) -> int:
    return int(str(text).removesuffix("s"))


def inline_secrets(text: str) -> list[str]:
    """Places of a file that look like a key, a hash of a password or a long random value."""
    return [f"looks like a secret: {found[0][:12]}..." for found in SECRET_TEXT.finditer(text)]


# --- compose ---------------------------------------------------------------------------------------------------------


def compose_problems(tree: Tree, *, side: str) -> list[str]:
    """What a compose file does that it must not."""
    found = []
    for name, service in tree["services"].items():
        found += [f"{name}: {problem}" for problem in _service(service)]
        found += [f"{name}: {problem}" for problem in _compose_network(name, service, tree["networks"], side=side)]
    found += [f"secret {name}: not from a file" for name, one in tree["secrets"].items() if set(one) != {"file"}]
    return found


def _service(service: Tree) -> Iterator[str]:
    if service.get("read_only") is not True:
        yield "its file system can be written"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service.get("user", ""))):
        yield "runs as root"
    if service.get("cap_drop") != ["ALL"] or "cap_add" in service:
        yield "has capabilities"
    if service.get("privileged") or "devices" in service:
        yield "privileged"
    if service.get("security_opt") != ["no-new-privileges:true"]:
        yield "may gain privileges"
    if any(service.get(key) for key in ("network_mode", "pid", "ipc", "userns_mode", "cgroup")):
        yield "shares a namespace"
    yield from _lifetime(service)
    yield from _environment(service)
    yield from _volumes(service)


def _lifetime(service: Tree) -> Iterator[str]:
    if not pinned(service["image"]) or service.get("pull_policy") != "never":
        yield "image is not pinned"
    limits = service["deploy"].get("resources", {}).get("limits", {})
    if not {"memory", "pids"} <= set(limits):
        yield "no limits"
    if service.get("restart") != "always" or seconds(service["deploy"]["restart_policy"]["delay"]) < DELAY:
        yield "restarts too fast or not at all"
    if seconds(service.get("stop_grace_period", "0s")) < GRACE:
        yield "is killed before it has said good-bye"
    if service.get("ulimits", {}).get("core") != 0:
        yield "may leave a core dump"


def _environment(service: Tree) -> Iterator[str]:
    if is_flower(service["command"]) and service.get("env_file") != ["flower.env"]:
        yield "off switches are missing"
    if set(service.get("environment", {})) & set(SWITCHES):
        yield "overrides an off switch"
    if any(SECRET_NAME.search(key) for key in service.get("environment", {}) if key != "CREDENTIALS_DIRECTORY"):
        yield "a secret in the environment"


def _volumes(service: Tree) -> Iterator[str]:
    for volume in service.get("volumes", []):
        source, target, mode = _volume(volume)
        if target.startswith(DATA) and mode != "ro":
            yield f"{target} can be written"
        if "docker.sock" in source or source in ("/", "/etc", "/proc", "/sys"):
            yield f"mounts {source}"
    writable = [target for _, target, mode in map(_volume, service.get("volumes", [])) if mode != "ro"]
    if len(writable) > 1:
        yield "more than one mount can be written"


def _volume(text: str) -> tuple[str, str, str]:
    """Source, target and mode; a source may be a variable with colons in it."""
    source, target, mode = re.fullmatch(r"(\$\{[^}]*\}[^:]*|[^:]+):([^:]+)(?::(\w+))?", text).groups()
    return source, target, mode or "rw"


def _compose_network(name: str, service: Tree, networks: Tree, *, side: str) -> Iterator[str]:
    joined = set(service["networks"])
    outside = {one for one in joined if not (networks[one] or {}).get("internal")}
    door = {"server": "proxy", "site": "supernode"}[side]
    if outside and name != door:
        yield "has a way out"
    if service.get("ports") and (side, name) != ("server", "proxy"):
        yield "publishes a port"
    if side == "site" and name != door and service.get("dns") != ["127.0.0.1"]:
        yield "may ask a name server"


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def kubernetes_problems(documents: Iterable[Tree], *, side: str) -> list[str]:
    """What a side's manifests do that they must not."""
    documents = list(documents)
    found = [f"{_name(one)}: a secret in a manifest" for one in documents if one["kind"] == "Secret"]
    for one in documents:
        if one["kind"] in ("Deployment", "StatefulSet"):
            found += [f"{_name(one)}: {problem}" for problem in _workload(one["spec"])]
        if one["kind"] == "Service" and side == "site" and one["spec"].get("type") != "ClusterIP":
            found.append(f"{_name(one)}: publishes a port")
        if one["kind"] == "Service" and [port["port"] for port in one["spec"]["ports"]] not in ([8443], [9094]):
            found.append(f"{_name(one)}: another port")
    return found + list(_policies(documents))


def _name(document: Tree) -> str:
    return str(document["metadata"]["name"])


def _workload(spec: Tree) -> Iterator[str]:
    pod = spec["template"]["spec"]
    if spec["replicas"] != 1 or spec["strategy"] != {"type": "Recreate"}:
        yield "may run twice at a time"
    if pod.get("automountServiceAccountToken") is not False:
        yield "has a token of the cluster"
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or any(
        "hostPath" in v for v in pod["volumes"]
    ):
        yield "shares the host"
    identity = pod.get("securityContext", {})
    if identity.get("runAsNonRoot") is not True or not identity.get("runAsUser"):
        yield "runs as root"
    if identity.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if pod.get("terminationGracePeriodSeconds", 0) < GRACE:
        yield "is killed before it has said good-bye"
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        yield from (f"{container['name']}: {problem}" for problem in _container(container))


def _container(container: Tree) -> Iterator[str]:
    hardened = {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    if container.get("securityContext") != hardened:
        yield "is not hardened"
    if not pinned(container["image"]):
        yield "image is not pinned"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield "no limits"
    maps = [one.get("configMapRef", {}).get("name") for one in container.get("envFrom", [])]
    if is_flower(container["command"]) and "fairsynth-flower" not in maps:
        yield "off switches are missing"
    names = [one["name"] for one in container.get("env", [])]
    if set(names) & set(SWITCHES) or any(SECRET_NAME.search(n) for n in names if n != "CREDENTIALS_DIRECTORY"):
        yield "a secret or an off switch in the environment"
    for mount in container.get("volumeMounts", []):
        if mount["mountPath"].startswith((*DATA, "/run/secrets")) and mount.get("readOnly") is not True:
            yield f"{mount['mountPath']} can be written"


def _policies(documents: list[Tree]) -> Iterator[str]:
    """Every pod has a policy, and no policy has more than its row of the firewall table."""
    policies = {_name(one): one["spec"] for one in documents if one["kind"] == "NetworkPolicy"}
    for one in documents:
        if one["kind"] not in ("Deployment", "StatefulSet"):
            continue
        labels = one["spec"]["template"]["metadata"]["labels"]
        spec = policies.get(_name(one), {})
        if spec.get("podSelector") != {"matchLabels": labels} or spec.get("policyTypes") != ["Ingress", "Egress"]:
            yield f"{_name(one)}: no network policy"
            continue
        ingress, egress = (_peers(spec.get(way) or [], key) for way, key in (("ingress", "from"), ("egress", "to")))
        if (ingress, egress) != ALLOWED[_name(one)]:
            yield f"{_name(one)}: its network policy allows other than its own peers"


def _peers(rules: list[Tree], key: str) -> set[tuple[str, int]]:
    """(peer, port) of rules; a peer is the name of a pod's label, `address`, or `all`."""
    found = set()
    for rule in rules:
        peers = rule.get(key) or [{}]
        for peer in peers:
            labels = peer.get("podSelector", {}).get("matchLabels", {})
            narrow = str(peer.get("ipBlock", {}).get("cidr", "")).endswith("/32")
            who = next(iter(labels.values()), "address" if narrow else "all")
            found |= {(who, port["port"]) for port in rule.get("ports") or [{"port": 0}]}
    return found


ALLOWED: Mapping[str, tuple[set[tuple[str, int]], set[tuple[str, int]]]] = {
    "fairsynth-server": ({("all", 8443)}, set()),
    "fairsynth-supernode": ({("fairsynth-superexec", 9094)}, {("address", 8443), ("kube-dns", 53)}),
    "fairsynth-superexec": (set(), {("fairsynth-supernode", 9094)}),
}


# --- systemd ---------------------------------------------------------------------------------------------------------

HARDENED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectProc": "invisible",
    "RestrictNamespaces": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
    "LimitCORE": "0",
    "Restart": "always",
    "RestartSec": "15",
}
DOORS = ("fairsynth-proxy", "fairsynth-supernode@")


def unit_problems(name: str, service: Mapping[str, str]) -> list[str]:
    """What a unit does that it must not."""
    found = [f"{key} is not {value!r}" for key, value in HARDENED.items() if service.get(key) != value]
    if not service.get("User", "root").startswith("fairsynth"):
        found.append("runs as root")
    if "MemoryMax" not in service:
        found.append("no limits")
    command = service["ExecStart"].split()
    flower = is_flower(command)
    if flower and "/etc/fairsynth/flower.env" not in service["EnvironmentFile"].split("\n"):
        found.append("off switches are missing")
    if any(switch in service.get("Environment", "") for switch in SWITCHES):
        found.append("overrides an off switch")
    closed = service.get("IPAddressDeny") == "any" and service.get("IPAddressAllow") == "localhost"
    if not name.startswith(DOORS) and not closed:
        found.append("has a way out")
    if "ReadWritePaths" in service or len(service.get("StateDirectory", "").split()) > 1:
        found.append("more than one folder can be written")
    if re.search(
        r"[^\s=]*/etc/\S*\.(key|secret|users)|supernode\.key",
        service["ExecStart"].replace("${CREDENTIALS_DIRECTORY}/supernode.key", ""),
    ):
        found.append("a secret that is not a credential of the service")
    if "--insecure" in command and not re.search(r"--runtime-api-address=127\.0\.0\.1:", service["ExecStart"]):
        found.append("speaks without TLS beyond loopback")
    return [f"{name}: {problem}" for problem in found]
