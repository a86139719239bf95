"""HALO for one place, alone: train on records, sample new patients, continue given ones, save and load.

In:  `Records` and their `Vocabulary` (visits.plain makes them of lists and tables).   Out: a trained `HALO`; `Records`.
Never: the network, a server, global random state.

    records, vocabulary = from_patients(patients)
    model = HALO().fit(records, vocabulary=vocabulary)
    new = model.sample(10_000)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Self

import numpy as np

from fairsynth.artefacts import read_manifest, sha256_json
from fairsynth.config import FitConfig, GeneratorConfig
from fairsynth.errors import CohortError, ConfigError
from fairsynth.generator import checkpoint
from fairsynth.generator.batch import Sequences
from fairsynth.generator.conditions import FREE, Conditions
from fairsynth.generator.descent import nll
from fairsynth.generator.fit import Epoch, History, OnEpoch, OnStep, computing, device_of, fit, split, start
from fairsynth.generator.model import Halo, build, weights_of
from fairsynth.generator.resume import Resume
from fairsynth.generator.sample import stream_patients
from fairsynth.schemas import IntArray
from fairsynth.seeds import stream
from fairsynth.visits.cohort import fits
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.plain import Patient, from_frames, from_patients, to_frames, to_patients
from fairsynth.visits.records import Records

__all__ = [
    "HALO",
    "Conditions",
    "FitConfig",
    "GeneratorConfig",
    "History",
    "Patient",
    "Resume",
    "from_frames",
    "from_patients",
    "to_frames",
    "to_patients",
]

KIND = "generator"


class HALO:
    """A generator of patients: a transformer over visits, and an autoregressive head over the codes of a visit.

    config     its size; None: the default size, with room for the longest training record
    fitting    how it is trained, where (`device`) and in which precision
    seed       of the first weights, the order of patients, and the choice of validation patients
    vocabulary what its tokens mean, after `fit`
    history    NLL of each epoch, after `fit`
    """

    def __init__(self, config: GeneratorConfig | None = None, fit: FitConfig | None = None, *, seed: int = 0) -> None:
        self.config = config
        self.fitting = fit or FitConfig()
        self.seed = seed
        self.history = History()
        self._vocabulary: Vocabulary | None = None
        self._model: Halo | None = None

    def __repr__(self) -> str:
        if self._model is None:
            return f"HALO({self.config!r}, untrained)"
        weights = sum(parameter.numel() for parameter in self._model.parameters())
        return f"HALO({self.config!r}, {len(self.vocabulary.codes):,} codes, {weights:,} weights)"

    @property
    def vocabulary(self) -> Vocabulary:
        """What the tokens mean. Raises ConfigError before `fit`."""
        if self._vocabulary is None:
            raise _untrained()
        return self._vocabulary

    @property
    def model(self) -> Halo:
        """The torch module, on its device. Raises ConfigError before `fit`."""
        if self._model is None:
            raise _untrained()
        return self._model

    def fit(
        self,
        records: Records,
        *,
        vocabulary: Vocabulary,
        validation: Records | None = None,
        resume: Resume | None = None,
        on_epoch: OnEpoch = lambda _: None,
        on_step: OnStep = lambda _, __: None,
    ) -> Self:
        """Train from the start on `records` (B patients), and keep the weights of the best validation NLL.

        Without `validation`, `fitting.validation_share` of the patients are set aside. With `resume`, the state is
        written to its folder every so often, and a training that was killed goes on from there to the same weights.
        `on_epoch` is called with the History so far, `on_step` with steps taken and steps in all. Raises CohortError
        when records do not fit the vocabulary or `config.maximum_visits`, ConfigError when there is no patient, no such
        device, or training diverges, ArtefactError when `resume` holds another training.
        """
        _check(records, vocabulary=vocabulary)
        if validation is None:
            kept, aside = split(len(records), share=self.fitting.validation_share, seed=self.seed)
            records, validation = records.take(kept), records.take(aside)
        else:
            _check(validation, vocabulary=vocabulary)
        config = self.config or default_size(records, validation)
        model = start(records, vocabulary=vocabulary, config=config, seed=self.seed)
        if (device := device_of(self.fitting)).type != "cpu":  # where the head is laid out otherwise
            model = build(weights_of(model), vocabulary=vocabulary, config=config, device=device)
        train, held = (
            Sequences.of(part, vocabulary=vocabulary, maximum_visits=config.maximum_visits)
            for part in (records, validation)
        )
        self.history = fit(
            model,
            train=train,
            validation=held,
            config=self.fitting,
            seed=self.seed,
            resume=resume,
            on_epoch=on_epoch,
            on_step=on_step,
        )
        self.config, self._vocabulary, self._model = config, vocabulary, model
        return self

    def conditions(
        self,
        number: int,
        *,
        group: str | None = None,
        label: int | None = None,
        sex: str | None = None,
        age: str | None = None,
        phenotypes: Mapping[str, bool] | None = None,
    ) -> Conditions:
        """`number` patients of this group, label (0 or 1), sex and age band, with (True) or without (False) each of
        `phenotypes`; what is None or not named is left to the model.

        Raises ConfigError on a name that the vocabulary does not have, or a number below 1.
        """
        return conditions(self.vocabulary, number, group=group, label=label, sex=sex, age=age, phenotypes=phenotypes)

    def sample(self, patients: int | Conditions, *, seed: int = 0, batch_size: int = 256) -> Records:
        """New patients: a number of them, or one for each of `patients`, in their order.

        The same seed gives the same patients, whatever `batch_size` (up to float rounding, see `generator.sample`).
        Raises ConfigError when conditions do not fit the vocabulary, or are too rare for the model.
        """
        return Records.concatenate(list(self.stream(patients, seed=seed, batch_size=batch_size)))

    def stream(
        self, patients: int | Conditions | Records, *, seed: int = 0, batch_size: int = 256
    ) -> Iterator[Records]:
        """The same, some `batch_size` patients at a time: memory does not grow with their number.

        Records are continued, see `continue_`.
        """
        if isinstance(patients, Records):
            _check(patients, vocabulary=self.vocabulary)
        wanted = conditions(self.vocabulary, patients) if isinstance(patients, int) else patients
        if not len(wanted):
            raise ConfigError.of("no patients asked for", where="0", expected="at least one")
        own = stream(seed, "halo", "continue" if isinstance(wanted, Records) else "sample")
        parts = stream_patients(self.model, conditions=wanted, seed=own, batch_size=batch_size)
        while True:
            with computing(self.fitting):  # not around the yield: what reads the stream has its own threads
                part = next(parts, None)
            if part is None:
                return
            yield part.records

    def continue_(self, histories: Records, *, seed: int = 0, batch_size: int = 256) -> Records:
        """`histories` (B patients), each with the visits that the model draws after its own: one at least.

        Raises CohortError when one leaves no room for a visit.
        """
        return Records.concatenate(list(self.stream(histories, seed=seed, batch_size=batch_size)))

    def nll(self, records: Records) -> float:
        """The negative log-likelihood of `records`, in nats a predicted visit; a label visit counts as one.

        Raises CohortError when there are none, or they do not fit vocabulary and `config.maximum_visits`.
        """
        _check(records, vocabulary=self.vocabulary)
        maximum = self.model.positions.shape[0] - 1
        sequences = Sequences.of(records, vocabulary=self.vocabulary, maximum_visits=maximum)
        with computing(self.fitting):
            nats, predicted = nll(self.model, sequences, layout=self.vocabulary.layout)
        return nats / predicted

    def save(self, folder: Path | str) -> Path:
        """Write the artefact `folder/generator` (safetensors and JSON), whole or not at all, and return `folder`."""
        facts = {
            "seed": self.seed,
            "fit": self.fitting.model_dump(mode="json"),
            "history": [asdict(epoch) for epoch in self.history.epochs],
        }
        checkpoint.save(
            Path(folder),
            kind=KIND,
            weights=weights_of(self.model),
            vocabulary=self.vocabulary,
            config=self.config or GeneratorConfig(),
            inputs={"vocabulary": self.vocabulary.sha256, "fit": sha256_json(facts["fit"])},
            facts=facts,
        )
        return Path(folder)

    @classmethod
    def load(cls, folder: Path | str, *, device: Literal["auto", "cpu", "cuda"] = "auto") -> Self:
        """The model that `save` or `fairsynth train` left in `folder`, on `device`.

        Raises ArtefactError when it is missing, altered or of another version, ConfigError without such a device.
        """
        where = Path(folder) / KIND
        generator = checkpoint.load(where, kind=KIND)
        facts = read_manifest(where, kind=KIND)["facts"]
        fitting = FitConfig.model_validate({**facts["fit"], "device": device})
        loaded = cls(generator.config, fitting, seed=facts["seed"])
        loaded.history = History(epochs=tuple(Epoch(**epoch) for epoch in facts["history"]))
        loaded._vocabulary = generator.vocabulary
        loaded._model = build(
            generator.weights,
            vocabulary=generator.vocabulary,
            config=generator.config,
            device=device_of(fitting),
        )
        return loaded


def conditions(
    vocabulary: Vocabulary,
    number: int,
    *,
    group: str | None = None,
    label: int | None = None,
    sex: str | None = None,
    age: str | None = None,
    phenotypes: Mapping[str, bool] | None = None,
) -> Conditions:
    """See `HALO.conditions`."""
    if number < 1:
        raise ConfigError.of("no patients asked for", where=f"{number}", expected="a number of 1 or more")
    given: dict[str, IntArray] = {}
    for name, value, known in (
        ("group", group, vocabulary.groups),
        ("sex", sex, vocabulary.sexes),
        ("age", age, vocabulary.ages),
    ):
        if value is not None and value not in known:
            raise ConfigError.of(f"unknown {name}", where=value, expected=f"one of: {', '.join(known)}")
        given[name] = np.full(number, FREE if value is None else known.index(value), dtype=np.int64)
    if phenotypes:
        known = vocabulary.phenotypes
        if unknown := sorted(phenotypes.keys() - set(known)):
            raise ConfigError.of("unknown phenotype", where=", ".join(unknown), expected=f"one of: {', '.join(known)}")
        wanted = [int(phenotypes[name]) if name in phenotypes else FREE for name in known]
        given["phenotypes"] = np.tile(np.array(wanted, dtype=np.int64), (number, 1))
    return Conditions(label=np.full(number, FREE if label is None else label, dtype=np.int64), **given)


def default_size(*parts: Records) -> GeneratorConfig:
    """The default size, with room for the longest record of `parts`."""
    longest = max(int(part.visit_counts.max(initial=1)) for part in parts)
    size = GeneratorConfig()
    return size.model_copy(update={"maximum_visits": max(size.maximum_visits, longest)})


def _check(records: Records, *, vocabulary: Vocabulary) -> None:
    """Raise CohortError when the generator cannot read `records`."""
    if not len(records):
        raise CohortError.of("no patients", where="records", expected="at least one")
    if empty := int((records.visit_counts < 1).sum()):
        raise CohortError.of("patients without a visit", where=f"{empty} of {len(records)} patients")
    if not fits(records, vocabulary=vocabulary):
        raise CohortError.of(
            "records outside the vocabulary", where="records", expected="the vocabulary that they were encoded with"
        )


def _untrained() -> ConfigError:
    return ConfigError.of("not trained yet", where="HALO", do="fit(...) first, or HALO.load(...)")
