"""Training at one place: passes over the patients until the validation NLL no longer falls.

In:  a model, training and validation sequences, `FitConfig`.   Out: the model with its best weights, `History`.
Never: the network, global random state, an order of patients that depends on anything but the seed.

The learning rate rises over `warm_up_steps` (at most a tenth of all), then follows a half cosine over all steps of all
epochs. The same arguments on the same CPU give the same bytes, whether the training was killed and resumed in between
(`resume`) or not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from fairsynth import artefacts
from fairsynth.config import FitConfig, GeneratorConfig
from fairsynth.errors import ConfigError
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import Descent, Objective, adam, nll
from fairsynth.generator.model import Halo, build, initial_weights, weights_of
from fairsynth.generator.priming import Shown, exclusive, home_rates, prime
from fairsynth.generator.resume import LOGGER, Resume, State, arrays_of, restore, set_weights
from fairsynth.generator.train import shuffled, threads
from fairsynth.schemas import Arrays
from fairsynth.seeds import numpy_stream
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

STEPS, EPOCHS = 800, (12, 60)  # what the validation NLL asked for, at 10,000 patients and more (docs/fidelity.md)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Nats a predicted visit, label visits included. `train` is the mean over the epoch, before each of its steps."""

    train: float
    validation: float | None = None


@dataclass(frozen=True, kw_only=True)
class History:
    """The epochs that were run, in order."""

    epochs: tuple[Epoch, ...] = ()

    @property
    def best(self) -> int:
        """The epoch (from 0) whose weights were kept: that of the lowest validation NLL, without one the last."""
        found = [epoch.validation for epoch in self.epochs]
        known = [(value, number) for number, value in enumerate(found) if value is not None]
        return min(known)[1] if known else len(self.epochs) - 1


OnEpoch = Callable[[History], None]
OnStep = Callable[[int, int], None]  # optimisation steps taken, and in all, were it not to stop early


def start(records: Records, *, vocabulary: Vocabulary, config: GeneratorConfig, seed: int) -> Halo:
    """An untrained model that knows the base rates of `records`, and what else they plainly show (`priming`)."""
    shown = Shown.by(records, vocabulary=vocabulary)
    blocks, rates = exclusive(shown, vocabulary=vocabulary), base_rates(records, vocabulary=vocabulary)
    rates = home_rates(rates, shown, blocks=blocks, vocabulary=vocabulary)
    weights = at_home(initial_weights(vocabulary, config, seed=seed), rates)
    model = build(weights, vocabulary=vocabulary, config=config)
    prime(model, shown, vocabulary=vocabulary)
    return model


def fit(
    model: Halo,
    *,
    train: Sequences,
    validation: Sequences | None = None,
    config: FitConfig,
    seed: int,
    resume: Resume | None = None,
    on_epoch: OnEpoch = lambda _: None,
    on_step: OnStep = lambda _, __: None,
) -> History:
    """Train `model` on the device of `config` (best laid out for it, see `build`), and leave the weights of the best
    validation NLL in it.

    Without `validation` patients, all epochs are run and the last weights kept. With `resume`, states are written to
    its folder on the way, and a training that was killed goes on from the newest. Raises ConfigError when there is no
    training patient, no such device, or the loss is no longer a number; ArtefactError when the states are of another
    training, or damaged.
    """
    if not len(train):
        raise ConfigError.of("no training patients", where="fit", expected="at least one")
    if resume is not None:
        resume.identity = _identity(model, train=train, validation=validation, config=config, seed=seed)
    model.to(device_of(config))
    with computing(config):
        run = _Fit(model=model, train=train, validation=validation, config=config, seed=seed, resume=resume)
        run.go_on()
        return run.run(on_epoch, on_step)


@dataclass(kw_only=True, eq=False)
class _Fit:
    """A fit under way."""

    model: Halo
    train: Sequences
    validation: Sequences | None
    config: FitConfig
    seed: int
    resume: Resume | None = None
    history: History = History()
    batch: int = 0  # batches done in the current epoch
    best: Arrays | None = None
    descent: Descent = field(init=False)
    total: torch.Tensor = field(init=False)  # () float64: nats of the current epoch's training patients

    def __post_init__(self) -> None:
        positions = float(self.train.steps.mean())
        optimiser = adam(self.model, learning_rate=self.config.learning_rate, weight_decay=self.config.weight_decay)
        objective = Objective(layout=self.train.layout, positions=positions)
        self.descent = Descent(
            model=self.model,
            optimiser=optimiser,
            sequences=self.train,
            objective=objective,
            precision=precision_of(self.config, self.model.device),
        )
        self.total = torch.zeros((), dtype=torch.float64, device=self.model.device)

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return -(-len(self.train) // self.config.batch_size)

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        return epochs_of(self.config, patients=len(self.train))

    @property
    def stopped(self) -> bool:
        """Whether all epochs are run, or `patience` of them brought no better validation NLL."""
        run, patience = len(self.history.epochs), self.config.patience
        waited = run - 1 - self.history.best
        return run >= self.epochs or (patience is not None and run > 0 and waited >= patience)

    def run(self, on_epoch: OnEpoch, on_step: OnStep) -> History:
        """Go on to the end."""
        while not self.stopped:
            self._epoch(on_step)
            on_epoch(self.history)
        if self.best is not None:
            set_weights(self.model, self.best)
        return self.history

    def go_on(self) -> None:
        """Take up the newest state, if there is one."""
        state = None if self.resume is None else self.resume.read()
        if state is None:
            return
        at = state.position
        self.history = History(epochs=tuple(Epoch(**epoch) for epoch in at["epochs"]))
        self.batch, self.descent.part, self.best = at["batch"], at["part"], state.arrays.get("best")
        self.total.fill_(float(state.arrays["epoch"]["total"][0]))
        restore(self.model, self.descent.optimiser, arrays=state.arrays)
        if (at["threads"], at["device"]) != (torch.get_num_threads(), self.model.device.type):
            LOGGER.warning("other threads or another device than before: the weights may differ in their last digits")

    @property
    def steps(self) -> int:
        """Optimisation steps taken."""
        return len(self.history.epochs) * self.batches + self.batch

    def _state(self) -> State:
        """All that `go_on` needs."""
        arrays = arrays_of(self.model, self.descent.optimiser)
        arrays["epoch"] = {"total": self.total.reshape(1).cpu().numpy()}
        if self.best is not None:
            arrays["best"] = self.best
        position = {
            "epochs": [asdict(epoch) for epoch in self.history.epochs],
            "batch": self.batch,
            "part": self.descent.part,
            "threads": torch.get_num_threads(),
            "device": self.model.device.type,
        }
        return State(arrays=arrays, position=position)

    def _epoch(self, on_step: OnStep) -> None:
        number = len(self.history.epochs)
        order = numpy_stream(self.seed, "fit", "order", number)
        every = self.batches * self.epochs
        nats = self.descent.objective.positions * self.train.layout.size  # of a loss of 1, a patient
        for place, rows in enumerate(shuffled(len(self.train), size=self.config.batch_size, order=order)):
            if place < self.batch:
                continue
            for group in self.descent.optimiser.param_groups:
                group["lr"] = learning_rate(self.steps, steps=every, config=self.config)
            self.total += self.descent.step(rows).double() * (nats * len(rows))
            self.batch = place + 1
            if self.resume is not None and self.resume.due:
                self.resume.write(self._state())
            on_step(self.steps, every)
        self._close()

    def _close(self) -> None:
        """End the epoch: measure, and keep the weights when they are the best."""
        self.descent.report()
        validation = None
        if self.validation is not None and len(self.validation):
            nats, predicted = nll(self.model, self.validation, layout=self.train.layout)
            validation = nats / predicted
        epoch = Epoch(train=float(self.total) / int(self.train.steps.sum()), validation=validation)
        if not all(math.isfinite(value) for value in (epoch.train, validation or 0.0)):
            raise ConfigError.of(
                "the loss is no longer a number",
                where=f"epoch {len(self.history.epochs) + 1}",
                do="a lower learning_rate, or more warm_up_steps",
            )
        self.history = History(epochs=(*self.history.epochs, epoch))
        if validation is not None and self.history.best == len(self.history.epochs) - 1:
            self.best = weights_of(self.model)
        self.total.zero_()
        self.batch = 0


def _identity(
    model: Halo, *, train: Sequences, validation: Sequences | None, config: FitConfig, seed: int
) -> dict[str, str]:
    """The hash of everything that the weights of a fit follow from."""
    return {
        "configuration": artefacts.sha256_json(config.model_dump(exclude={"threads", "device"})),
        "seed": artefacts.sha256_json(seed),
        "first weights": _sha256(*weights_of(model).values()),
        "training patients": _sha256(train.tokens, train.offsets, train.starts),
        "validation patients": "" if validation is None else _sha256(validation.tokens, validation.offsets),
    }


def _sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def epochs_of(config: FitConfig, *, patients: int) -> int:
    """Passes over `patients`, at most. Left to itself: `STEPS` optimisation steps' worth, within `EPOCHS`."""
    batches = -(-patients // config.batch_size)
    return config.epochs or min(max(EPOCHS[0], -(-STEPS // batches)), EPOCHS[1])


def learning_rate(step: int, *, steps: int, config: FitConfig) -> float:
    """Of step number `step` (from 0) of `steps`."""
    low = config.final_learning_rate_share
    along = step / max(steps - 1, 1)
    cosine = low + (1 - low) * (1 + math.cos(math.pi * along)) / 2
    warm_up = min(config.warm_up_steps, steps // 10)
    warm = min(1.0, (step + 1) / (warm_up + 1))
    return config.learning_rate * warm * cosine


def device_of(config: FitConfig) -> torch.device:
    """The device that `config` names. Raises ConfigError when this machine has no GPU and it asks for one."""
    found = torch.cuda.is_available()
    if config.device == "cuda" and not found:
        raise ConfigError.of("no GPU that torch can use", where="device: cuda", do="device: auto, or cpu")
    return torch.device("cuda" if found and config.device != "cpu" else "cpu")


def precision_of(config: FitConfig, device: torch.device) -> torch.dtype | None:
    """What matrix products are computed in, None for that of the weights; sums and weights stay float32."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    wanted = config.precision == "bfloat16" or (config.precision == "auto" and has_bfloat16)
    return torch.bfloat16 if wanted else None


@contextmanager
def computing(config: FitConfig) -> Iterator[None]:
    """Torch with the threads of `config` inside the block."""
    with threads(config.threads or torch.get_num_threads()):
        yield


def split(patients: int, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and of validation patients: `share` of them, at least one where there are two."""
    rows = numpy_stream(seed, "fit", "validation").permutation(patients)
    number = min(max(1, round(share * patients)), patients - 1)
    return np.sort(rows[number:]), np.sort(rows[:number])
