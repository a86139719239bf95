import json

import numpy as np
import pytest
from generator_toys import SMALL, SMALL_VOCABULARY
from safetensors.numpy import load_file, save_file

from fairsynth.artefacts import read_manifest, sha256_folder
from fairsynth.errors import ArtefactError, ProtocolError
from fairsynth.generator import checkpoint
from fairsynth.generator.model import initial_weights

WEIGHTS = initial_weights(SMALL_VOCABULARY, SMALL, seed=4)
KIND = "generator-plain"


def save(root, weights=WEIGHTS):
    options = {"vocabulary": SMALL_VOCABULARY, "config": SMALL, "inputs": {"cohort": "abc"}, "facts": {"round": 3}}
    return checkpoint.save(root, kind=KIND, weights=weights, **options)


def alter(folder, change):
    """Change the weights file and make the manifest agree: only what the arrays say is wrong."""
    weights = load_file(folder / checkpoint.WEIGHTS)
    change(weights)
    save_file(weights, folder / checkpoint.WEIGHTS)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["content"] = sha256_folder(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_was_saved_is_loaded(tmp_path):
    generator = checkpoint.load(save(tmp_path), kind=KIND)
    assert generator.vocabulary == SMALL_VOCABULARY
    assert generator.config == SMALL
    assert generator.weights.keys() == WEIGHTS.keys()
    assert all(np.array_equal(generator.weights[name], WEIGHTS[name]) for name in WEIGHTS)
    manifest = read_manifest(tmp_path / KIND, kind=KIND)
    assert (manifest["facts"], manifest["inputs"]) == ({"round": 3}, {"cohort": "abc"})


def test_weights_that_do_not_fit_are_not_saved(tmp_path):
    with pytest.raises(ProtocolError):
        save(tmp_path, {**WEIGHTS, "norm.bias": np.full_like(WEIGHTS["norm.bias"], np.inf)})
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_and_another_kind_are_refused(tmp_path):
    with pytest.raises(ArtefactError):
        checkpoint.load(tmp_path / KIND, kind=KIND)
    with pytest.raises(ArtefactError):
        checkpoint.load(save(tmp_path), kind="generator")


def test_an_altered_byte_is_noticed(tmp_path):
    folder = save(tmp_path)
    path = folder / checkpoint.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="altered"):
        checkpoint.load(folder, kind=KIND)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.pop("positions"), "positions"),
        (lambda w: w.update(stranger=np.zeros(2, dtype=np.float32)), "stranger"),
        (lambda w: w.update(positions=w["positions"][:3].copy()), "positions"),
        (lambda w: w.update(positions=w["positions"].astype(np.float64)), "float64"),
        (lambda w: w["positions"].__setitem__(0, np.nan), "not finite"),
    ],
    ids=["missing", "unknown", "shape", "type", "finite"],
)
def test_weights_that_do_not_fit_their_vocabulary_and_size_are_refused(tmp_path, change, match):
    folder = save(tmp_path)
    alter(folder, change)
    with pytest.raises(ArtefactError, match=match):
        checkpoint.load(folder, kind=KIND)


def test_files_that_are_not_a_generators_are_refused_without_a_traceback_of_their_reader(tmp_path):
    folder = save(tmp_path)
    (folder / checkpoint.WEIGHTS).write_bytes(b"not safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["content"] = sha256_folder(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="not a generator") as caught:
        checkpoint.load(folder, kind=KIND)
    assert caught.value.__suppress_context__
