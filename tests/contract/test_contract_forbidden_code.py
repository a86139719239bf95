"""What our code may not do, found in its syntax: run what it reads, or make its own cryptography.

Each scanner is shown to find planted violations, so that its silence means something.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [path for folder in ("fairsynth", "server", "client") for path in sorted((ROOT / folder).rglob("*.py"))]
MASKING = sorted((ROOT / "fairsynth" / "federation" / "masking").rglob("*.py"))

RUNS_WHAT_IT_READS = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "jsonpickle",
}
CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_YAML = {
    "load",
    "load_all",
    "unsafe_load",
    "unsafe_load_all",
    "full_load",
    "full_load_all",
    "Loader",
    "UnsafeLoader",
}
UNSAFE_YAML |= {"FullLoader", "CLoader"}

# In the masking package: what composing the primitives of `cryptography` needs, and nothing that could replace them.
ALLOWED = {
    "__future__", "base64", "collections", "contextlib", "dataclasses", "enum", "fcntl", "fractions", "functools",
    "itertools", "json", "math", "operator", "os", "pathlib", "secrets", "struct", "types", "typing",
    "cryptography", "fairsynth", "numpy", "pydantic", "safetensors",
}  # fmt: skip
HASHES = {"sha256", "file_digest"}  # of hashlib, where it is imported
RANDOM = {"random", "default_rng", "RandomState", "seed", "Generator", "PCG64", "MT19937", "Philox", "SeedSequence"}
FORBIDDEN_WORDS = {"prng", "csprng", "keystream_block", "quarter_round", "sbox", "s_box", "md5", "sha1", "hmac_sha"}
WRITES_PRIMITIVES = (ast.BitXor, ast.LShift)


def runs_what_it_reads(tree: ast.AST) -> Iterator[str]:
    """Deserialisers that run code, calls of eval and exec, unsafe YAML, unsafe loading by numpy and torch."""
    for node in ast.walk(tree):
        for name in imports(node):
            if name.split(".")[0] in RUNS_WHAT_IT_READS:
                yield f"{node.lineno}: import {name}"
        if isinstance(node, ast.ImportFrom) and node.module == "yaml":
            yield from (f"{node.lineno}: yaml.{one.name}" for one in node.names if one.name in UNSAFE_YAML)
        if isinstance(node, ast.Attribute) and dotted(node.value) == "yaml" and node.attr in UNSAFE_YAML:
            yield f"{node.lineno}: yaml.{node.attr}"
        if isinstance(node, ast.Call):
            yield from bad_call(node)


def bad_call(node: ast.Call) -> Iterator[str]:
    name, given = dotted(node.func), {one.arg: one.value for one in node.keywords}
    if name in CALLS:
        yield f"{node.lineno}: {name}()"
    if name == "torch.load" and not is_true(given.get("weights_only")):
        yield f"{node.lineno}: torch.load without weights_only=True"
    if name in {"np.load", "numpy.load"}:
        allowed = given.get("allow_pickle")
        if allowed is not None and not (isinstance(allowed, ast.Constant) and allowed.value is False):
            yield f"{node.lineno}: numpy.load that unpickles"
    if name.endswith("read_pickle") or name.endswith("to_pickle"):
        yield f"{node.lineno}: {name}"


def makes_cryptography(tree: ast.AST) -> Iterator[str]:
    """In the masking package: other imports, other randomness than the system's, and arithmetic of primitives."""
    for node in ast.walk(tree):
        for what in (*bad_imports(node), *bad_names(node), *bad_arithmetic(node)):
            yield f"{getattr(node, 'lineno', 0)}: {what}"


def bad_imports(node: ast.AST) -> Iterator[str]:
    for name in imports(node):
        parts = name.split(".")
        if parts[0] not in ALLOWED | {"hashlib"} or RANDOM & set(parts):
            yield f"import {name}"
        if parts[0] == "cryptography" and not ({"hazmat", "exceptions"} & set(parts) or len(parts) == 1):
            yield f"import {name}"
    if isinstance(node, ast.ImportFrom) and node.module == "hashlib":
        yield from (f"hashlib.{one.name}" for one in node.names if one.name not in HASHES)


def bad_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and (
        node.attr in RANDOM or (dotted(node).startswith("hashlib.") and node.attr not in HASHES)
    ):
        yield dotted(node)
    if isinstance(node, ast.Name) and node.id in RANDOM:
        yield node.id
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and any(word in node.name.lower() for word in FORBIDDEN_WORDS):
        yield node.name


def bad_arithmetic(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and dotted(node.func) == "pow" and len(node.args) + len(node.keywords) > 2:
        yield "pow with a modulus"
    if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, WRITES_PRIMITIVES) and not is_constant(node):
        yield type(node.op).__name__
    if isinstance(node, ast.Attribute) and node.attr in {"bitwise_xor", "left_shift", "logical_xor"}:
        yield dotted(node)


def imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_true(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def is_constant(node: ast.BinOp | ast.AugAssign) -> bool:
    """Such as 1 << 40: a number, no primitive."""
    return isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant)


def found(scanner, paths) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{what}"
        for path in paths
        for what in scanner(ast.parse(path.read_text(encoding="utf-8")))
    ]


def test_nothing_that_is_shipped_runs_what_it_reads():
    assert len(SHIPPED) > 200
    assert found(runs_what_it_reads, SHIPPED) == []


def test_the_masking_package_composes_primitives_and_makes_none():
    assert found(makes_cryptography, MASKING) == []


PLANTED = [
    "import pickle",
    "from joblib import load",
    "import marshal as m",
    "import numpy as np\nnp.load('x', allow_pickle=True)",
    "import torch\ntorch.load('x')",
    "import torch\ntorch.load('x', weights_only=False)",
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
    "from yaml import unsafe_load",
    "import yaml\nyaml.safe_load(text) if yaml.FullLoader else 0",
    "eval('1')",
    "exec(text)",
    "import pandas as pd\npd.read_pickle('x')",
]


@pytest.mark.parametrize("source", PLANTED)
def test_code_that_runs_what_it_reads_would_be_found(source):
    assert list(runs_what_it_reads(ast.parse(source)))


HAND_MADE = [
    "import random",
    "import torch",
    "import hmac",
    "from Crypto.Cipher import ChaCha20",
    "import numpy as np\nrng = np.random.default_rng(1)",
    "from numpy.random import RandomState",
    "import numpy as np\nnp.random.seed(1)",
    "from numpy import random",
    "import hashlib\nhashlib.md5(b'')",
    "from hashlib import sha1",
    "shared = pow(base, secret, prime)",
    "shared = pow(base, secret, mod=prime)",
    "def mask(a, b):\n    return bytes(x ^ y for x, y in zip(a, b))",
    "state ^= state << 13",
    "import numpy as np\nnp.bitwise_xor(a, b)",
    "class FastPRNG:\n    pass",
    "def quarter_round(a, b, c, d):\n    pass",
]


@pytest.mark.parametrize("source", HAND_MADE)
def test_hand_made_cryptography_would_be_found(source):
    assert list(makes_cryptography(ast.parse(source)))


def test_what_masking_needs_is_allowed():
    source = """
import os, secrets, hashlib
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from fairsynth.errors import ProtocolError
LIMIT = 1 << 40
def add(x, y):
    return (np.asarray(x, dtype=np.uint64) + y, os.urandom(32), hashlib.sha256(b"").digest(), 2**64 % 7)
"""
    assert list(makes_cryptography(ast.parse(source))) == []
