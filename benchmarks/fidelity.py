"""How faithful synthetic patients are: `python -m benchmarks.fidelity [--quick] [--json]` (docs/fidelity.md).

HALO with its default size and training is fitted to 80 % of a data set, stopped early on 10 %, and compared with the
10 % of real patients that it never saw. Beside each figure stands the ceiling: what as many other real patients reach.
Sampling noise is the same on both sides: synthetic patients, and the real training patients that make the ceiling, are
cut into pieces as large as the held-out set, and a figure is the mean over pieces.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from benchmarks.fidelity_baselines import baseline_nll
from benchmarks.fidelity_data import DATA_SETS, cohort_of
from benchmarks.fidelity_table import insufficient, markdown, targets
from fairsynth.artefacts import code_version, sha256_json
from fairsynth.audit.copies import copied_records, copied_visits, nearest
from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.predictors import FitSettings, LogisticRegression
from fairsynth.audit.resemblance import Figures, Reference, label_prevalence, mean_resemblance, reference
from fairsynth.config import FitConfig, GeneratorConfig
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import nll
from fairsynth.generator.fit import fit, start
from fairsynth.generator.model import Halo
from fairsynth.generator.sample import Conditions, draw
from fairsynth.seeds import numpy_stream, stream
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.records import Records

CONFIDENCE = 0.95
NEIGHBOURS = 2_000  # patients whose nearest training patient is looked for


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much is compared. Diabetes-130 has 54,534 training patients; 20,000 take ten minutes a data set, not half an
    hour, and are harder to learn from."""

    seeds: int  # of training and sampling, each with its own
    patients: int | None  # training patients at most; None: all
    simulated: int  # patients to simulate, where that is done
    generator: GeneratorConfig
    fit: FitConfig
    baseline_epochs: int = 30  # at most
    small: tuple[int, ...] = ()  # training patients of the runs on little data, which look for copies


FULL = Setting(
    seeds=5, patients=20_000, simulated=40_000, generator=GeneratorConfig(), fit=FitConfig(), small=(200, 1_000)
)
QUICK = Setting(seeds=3, patients=4_000, simulated=5_000, generator=GeneratorConfig(), fit=FitConfig(), small=(200,))


def measure(cohort: Cohort, setting: Setting, *, kept: Path) -> dict[str, Any]:
    """All figures of a data set: `figures` (mean and interval over seeds; ceiling), and what they were made from.

    What is finished is kept as JSON below `kept`, and read from there the next time.
    """
    cohort = _shuffled(cohort, patients=setting.patients)
    real = reference(cohort.held_out, vocabulary=cohort.vocabulary)
    steps = _Kept(folder=kept, setting=setting)
    told = steps.get("fixed", lambda: _fixed(cohort, setting, real=real))
    runs = [
        steps.get(f"seed-{seed}", lambda seed=seed: _run(cohort, setting, real=real, seed=seed))  # type: ignore[misc]
        for seed in range(1, setting.seeds + 1)
    ]
    small = {
        str(number): steps.get(f"small-{number}", lambda number=number: _small(cohort, setting, patients=number))  # type: ignore[misc]
        for number in setting.small
        if number < len(cohort.train)
    }
    ceiling = told.pop("ceiling")
    figures = {
        name: {"synthetic": _interval([run[name] for run in runs]), "real": ceiling.get(name)} for name in runs[0]
    }
    baselines = steps.get("baselines", lambda: _baselines(cohort, setting))
    found = {**told, "seeds": setting.seeds, "figures": figures, "nll": baselines, "small": small}
    return {**found, "targets": targets(found), "insufficient": insufficient(found)}


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """JSON files of finished steps, named by the step, the setting (but for the number of seeds) and the code."""

    folder: Path
    setting: Setting

    def get(self, step: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the step found, now or before."""
        key = sha256_json([code_version(), repr(replace(self.setting, seeds=0))])[:12]
        path = self.folder / f"{step}-{key}.json"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            found = json.dumps(make())  # before the file is opened: a killed step leaves none
            path.write_text(found, encoding="utf-8")
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return loaded


def _fixed(cohort: Cohort, setting: Setting, *, real: Reference) -> dict[str, Any]:
    """What no seed changes: the data, and the ceiling."""
    held_out, vocabulary = cohort.held_out, cohort.vocabulary
    ceiling = mean_resemblance(real, _pieces(cohort.train, size=len(held_out)))
    ceiling |= {"auroc": _auroc(cohort.train, cohort), **_copies(held_out, cohort)}
    return {
        "patients": {name: len(getattr(cohort, name)) for name in ("train", "validation", "held_out")},
        "groups": {name: int((held_out.group == index).sum()) for index, name in enumerate(vocabulary.groups)},
        "tokens": vocabulary.layout.size,
        "ceiling": ceiling,
        "held_out": label_prevalence(held_out, vocabulary=vocabulary),
    }


def _baselines(cohort: Cohort, setting: Setting) -> Figures:
    """Nats a predicted visit of what HALO is compared with."""
    return baseline_nll(
        cohort.train,
        validation=cohort.validation,
        test=cohort.held_out,
        vocabulary=cohort.vocabulary,
        seed=1,
        epochs=setting.baseline_epochs,
    )


def _run(cohort: Cohort, setting: Setting, *, real: Reference, seed: int) -> Figures:
    """The figures of one generator, and of as many synthetic patients as there are real ones to train on."""
    began = time.perf_counter()
    model, epochs = _fitted(cohort, setting, seed=seed)
    seconds = time.perf_counter() - began
    made = _synthetic(model, number=len(cohort.train), seed=seed)
    figures = mean_resemblance(real, _pieces(made, size=len(cohort.held_out)))
    figures |= {"auroc": _auroc(made, cohort), "nll": _nll(model, cohort.held_out, cohort, setting)}
    return figures | _copies(made, cohort) | {"epochs": float(epochs), "training_seconds": round(seconds, 1)}


def _fitted(cohort: Cohort, setting: Setting, *, seed: int) -> tuple[Halo, int]:
    """A trained generator, and the epochs that its weights took."""
    vocabulary = cohort.vocabulary
    model = start(cohort.train, vocabulary=vocabulary, config=setting.generator, seed=seed)
    sequences = [
        Sequences.of(part, vocabulary=vocabulary, maximum_visits=setting.generator.maximum_visits)
        for part in (cohort.train, cohort.validation)
    ]
    history = fit(model, train=sequences[0], validation=sequences[1], config=setting.fit, seed=seed)
    return model, history.best + 1


def _synthetic(model: Halo, *, number: int, seed: int) -> Records:
    """Patients of the generator's own mix."""
    return draw(model, conditions=Conditions.free(number), seed=stream(seed, "fidelity")).records


def _nll(model: Halo, records: Records, cohort: Cohort, setting: Setting) -> float:
    """Nats a predicted visit, label visits included."""
    maximum = setting.generator.maximum_visits
    sequences = Sequences.of(records, vocabulary=cohort.vocabulary, maximum_visits=maximum)
    nats, predicted = nll(model, sequences, layout=cohort.vocabulary.layout)
    return nats / predicted


def _auroc(train: Records, cohort: Cohort) -> float:
    """On held-out real patients, of a logistic regression that was trained on `train`."""
    settings = FitSettings(epochs=1, threads=1)
    fitted = LogisticRegression().fit(train, vocabulary=cohort.vocabulary, settings=settings, seed=1)
    scores = blind_scores(fitted, cohort.held_out, vocabulary=cohort.vocabulary)
    return float(roc_auc_score(cohort.held_out.label, scores))


def _copies(records: Records, cohort: Cohort) -> Figures:
    """How near `records` come to the training patients."""
    few = records.take(np.arange(min(NEIGHBOURS, len(records))))
    far = nearest(few, train=cohort.train, codes=len(cohort.vocabulary.codes))
    return {
        "nearest/mean": float(far.mean()),
        "nearest/first_percentile": float(np.quantile(far, 0.01)),
        "copied/visits": copied_visits(records, train=cohort.train),
        "copied/records": copied_records(records, train=cohort.train),
    }


def _small(cohort: Cohort, setting: Setting, *, patients: int) -> dict[str, Any]:
    """A generator of `patients` training patients, and a tenth of them to stop it: does it repeat them?"""
    few = Cohort(
        vocabulary=cohort.vocabulary,
        train=cohort.train.take(np.arange(patients)),
        validation=cohort.validation.take(np.arange(min(max(1, patients // 10), len(cohort.validation)))),
        held_out=cohort.held_out,
    )
    model, epochs = _fitted(few, setting, seed=1)
    made = _synthetic(model, number=len(few.held_out), seed=1)
    real = reference(few.held_out, vocabulary=few.vocabulary)
    return {
        "epochs": epochs,
        "nll": {"train": _nll(model, few.train, few, setting), "held_out": _nll(model, few.held_out, few, setting)},
        "synthetic": _copies(made, few) | _r2_of_whole(mean_resemblance(real, [made])),
        "held_out": _copies(few.held_out, few) | _r2_of_whole(mean_resemblance(real, [few.train])),
    }


def _r2_of_whole(figures: Mapping[str, float]) -> Figures:
    return {name: value for name, value in figures.items() if name.startswith("r2/whole/")}


def _shuffled(cohort: Cohort, *, patients: int | None) -> Cohort:
    """The training patients, at most `patients` of them, in a random order (files are sorted by patient)."""
    order = numpy_stream(1, "fidelity", "order").permutation(len(cohort.train))[:patients]
    return Cohort(
        vocabulary=cohort.vocabulary,
        train=cohort.train.take(order),
        validation=cohort.validation,
        held_out=cohort.held_out,
    )


def _pieces(records: Records, *, size: int) -> list[Records]:
    """Disjoint runs of `size` records; all of them where there are fewer."""
    number = max(1, len(records) // size)
    return [records.take(np.arange(i * size, min((i + 1) * size, len(records)))) for i in range(number)]


def _interval(values: Sequence[float]) -> list[float]:
    """Mean, and the bounds of Student's interval for it over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return [mean, float("nan"), float("nan")]
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return [mean, mean - half, mean + half]


def strict(value: Any) -> Any:
    """What JSON may hold: null for a figure that nobody was there to make."""
    if isinstance(value, dict):
        return {name: strict(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _results(names: Sequence[str], setting: Setting, *, work: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        cohort = cohort_of(name, work=work, patients=setting.simulated)
        yield name, measure(cohort, setting, kept=work / f"fidelity-{name}")


def main() -> None:
    """Print the figures of each data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few patients, 3 seeds")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--data", choices=DATA_SETS, action="append", help="only this data set; may be repeated")
    parser.add_argument("--patients", type=int, help="training patients at most")
    parser.add_argument("--seeds", type=int, help="trained generators a data set")
    parser.add_argument("--work", type=Path, help="keep prepared data and finished steps here, and use them again")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = QUICK if arguments.quick else FULL
    given = {name: value for name in ("seeds", "patients") if (value := getattr(arguments, name))}
    setting = replace(setting, **given, fit=setting.fit.model_copy(update={"threads": arguments.threads}))
    with nullcontext(arguments.work) if arguments.work else tempfile.TemporaryDirectory() as folder:
        results = _results(arguments.data or DATA_SETS, setting, work=Path(folder))
        if arguments.json:
            print(json.dumps(strict(dict(results)), allow_nan=False))
            return
        for name, found in results:
            print(markdown(name, found), flush=True)


if __name__ == "__main__":
    main()
