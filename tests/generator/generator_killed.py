"""A fit in a process of its own, so that it can be killed: python generator_killed.py FOLDER SECONDS EPOCHS."""

import hashlib
import sys
import time
from pathlib import Path

from generator_toys import SMALL, SMALL_VOCABULARY, hospital

from fairsynth.config import FitConfig
from fairsynth.generator.batch import Sequences
from fairsynth.generator.fit import fit, start
from fairsynth.generator.model import weights_of
from fairsynth.generator.resume import Resume


def trained(*, resume, epochs=6, pause=0.0, seed=1, patients=90, **options):
    """The hash of the weights after the toy's training."""
    records = hospital(patients, seed=1)
    train, validation = (
        Sequences.of(part, vocabulary=SMALL_VOCABULARY, maximum_visits=6) for part in (records, hospital(40, seed=2))
    )
    model = start(records, vocabulary=SMALL_VOCABULARY, config=SMALL, seed=3)
    settings = {"batch_size": 8, "learning_rate": 5e-2, "warm_up_steps": 5, "threads": 1, "device": "cpu"}
    config = FitConfig(**{**settings, "epochs": epochs, "patience": 4, **options})
    paused = {"on_step": lambda *_: time.sleep(pause)}
    history = fit(model, train=train, validation=validation, config=config, seed=seed, resume=resume, **paused)
    digest = hashlib.sha256(repr(history).encode())
    for name, array in weights_of(model).items():
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    folder, seconds, epochs = sys.argv[1:]
    print(trained(resume=Resume(root=Path(folder), seconds=float(seconds)), epochs=int(epochs), pause=0.002))
