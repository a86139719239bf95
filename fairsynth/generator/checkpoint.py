"""The generator on disk: an artefact of weights, vocabulary and size.

In:  weights and what they mean, or a folder.   Out: a folder, or a checked `Generator`.
Never: pickle; weights that do not fit their own vocabulary and size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fairsynth import artefacts, plain_json
from fairsynth.config import GeneratorConfig
from fairsynth.errors import ArtefactError, ProtocolError
from fairsynth.generator.model import build
from fairsynth.schemas import Arrays
from fairsynth.visits.layout import Vocabulary

WEIGHTS, VOCABULARY, CONFIG = "weights.safetensors", "vocabulary.json", "config.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Generator:
    """Weights, and what they mean."""

    weights: Arrays
    vocabulary: Vocabulary
    config: GeneratorConfig


def save(
    root: Path,
    *,
    kind: str,
    weights: Arrays,
    vocabulary: Vocabulary,
    config: GeneratorConfig,
    inputs: Mapping[str, str],
    facts: Mapping[str, Any],
) -> Path:
    """Write the artefact `root/kind` and return it. Raises ProtocolError when the weights do not fit."""
    build(weights, vocabulary=vocabulary, config=config)
    with artefacts.new(root, kind=kind, inputs=inputs, facts=facts) as folder:
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, folder / WEIGHTS)
        artefacts.write_json(folder / VOCABULARY, asdict(vocabulary))
        artefacts.write_json(folder / CONFIG, config.model_dump())
    return root / kind


def load(folder: Path, *, kind: str) -> Generator:
    """The generator in `folder`. Raises ArtefactError when it is missing, altered, or does not fit together."""
    artefacts.read_manifest(folder, kind=kind, verify=True)
    try:
        names = plain_json.read(folder / VOCABULARY)
        vocabulary = Vocabulary(**{field: tuple(values) for field, values in names.items()})
        config = GeneratorConfig.model_validate_json((folder / CONFIG).read_bytes())
        weights: Arrays = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, AttributeError, ValidationError, SafetensorError):
        raise ArtefactError.of(
            "not a generator", where=str(folder), expected=f"{WEIGHTS}, {VOCABULARY} and {CONFIG}", do="train it again"
        ) from None
    try:
        build(weights, vocabulary=vocabulary, config=config)
    except ProtocolError as error:
        raise ArtefactError(error.problems) from None
    return Generator(weights=weights, vocabulary=vocabulary, config=config)
