"""Synthetic patients at one site: of a finished run, or of a model that the site trained alone.

In:  a run and a site, or a model; conditions.   Out: `out/events` (MEDS), `out/tables` (the source's own format), and
`out/records`, what the release gate compares.
Never: a folder that holds only half of them; all patients in memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairsynth import artefacts, plain_json, seeds
from fairsynth.audit.site import home_rates
from fairsynth.config import FitConfig, StudyPlan
from fairsynth.errors import ConfigError
from fairsynth.experiments.study import Run
from fairsynth.experiments.train import Model
from fairsynth.federation.aggregate import weights_sha256
from fairsynth.federation.noised.rates import household_of
from fairsynth.federation.plans import FAIRSYNTH
from fairsynth.federation.settling import Home, own_generator
from fairsynth.federation.terms import load_terms
from fairsynth.generator import checkpoint
from fairsynth.generator.base_rates import at_home
from fairsynth.generator.fit import device_of
from fairsynth.generator.model import Halo, build, weights_of
from fairsynth.generator.sample import Conditions, stream_patients
from fairsynth.halo import HALO
from fairsynth.schemas import SiteId
from fairsynth.synthesis.decode import AT_HOME, RECORDS, write_events, write_tables
from fairsynth.visits.cohort import COHORT, load_cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

OnPatients = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A generator, the folder of the site whose words it speaks, and what names its randomness.

    `generator` is the hash of its weights, as they travel where it was trained with others: the release gate counts its
    runs by it. `privacy` is epsilon, delta and the accountant of its training, where that had noise.
    """

    model: Halo
    generator: str
    vocabulary: Vocabulary
    folder: Path
    plan: StudyPlan
    name: tuple[str, ...]
    privacy: Mapping[str, object] | None = None

    def seed(self, purpose: str, seed: int) -> int:
        """The seed for one purpose."""
        return seeds.stream(self.plan.seed, purpose, *self.name, seed)


def source_of_run(run: Run, *, site: str, arm: str) -> Source:
    """One of a run's two generators at one of its sites. Raises ConfigError on an unknown site."""
    folder, plan = run.site(site), run.plan
    generator = checkpoint.load(run.server / f"generator-{arm}", kind=f"generator-{arm}")
    cohort = load_cohort(folder)
    rates = home_rates(folder, cohort, plan=plan, terms=load_terms(run.server, plan=plan))
    home = Home(site=SiteId(site), cohort=cohort, rates=rates, plan=plan)
    settles = arm == FAIRSYNTH  # as in the audit
    weights = own_generator(folder, home, weights=generator.weights) if settles else at_home(generator.weights, rates)
    device = device_of(FitConfig())
    model = build(weights, vocabulary=cohort.vocabulary, config=generator.config, device=device)
    return Source(
        model=model,
        generator=weights_sha256(generator.weights),
        vocabulary=cohort.vocabulary,
        folder=folder,
        plan=plan,
        name=(site, arm),
        privacy=household_of(folder, plan).releases.bound() if plan.privacy.noised else None,
    )


def source_of_model(model: Model) -> Source:
    """What `fairsynth train` left."""
    halo = HALO.load(model.root)
    return Source(
        model=halo.model,
        generator=weights_sha256(weights_of(halo.model)),
        vocabulary=halo.vocabulary,
        folder=model.root,
        plan=model.plan,
        name=("alone",),
    )


def generate(
    source: Source, *, conditions: Conditions, out: Path, seed: int, on_patients: OnPatients = lambda _: None
) -> int:
    """Write a synthetic patient of `source` for each of `conditions` under `out`; their number.

    `on_patients` is told how many are drawn. Raises ConfigError when `out` is not empty.
    """
    for kind in (RECORDS, "events", "tables"):
        artefacts.sweep(out, kind=kind)  # what a killed process left
    if out.exists() and any(out.iterdir()):
        raise ConfigError.of("folder not empty", where=str(out), do="another --out")
    entry = plain_json.read(source.folder / "site.json")
    patients = _patients(source, conditions=conditions, seed=seed, on_patients=on_patients)
    cohort = artefacts.read_manifest(source.folder / COHORT, kind=COHORT)["content"]
    facts: dict[str, object] = {"synthetic": True, "release": AT_HOME, "seed": seed, "patients": len(conditions)}
    if source.privacy is not None:
        facts |= {"privacy": dict(source.privacy)}
    inputs = {"generator": source.generator, "cohort": cohort}
    with artefacts.new(out, kind=RECORDS, inputs=inputs, facts=facts) as kept:
        parts = _kept(patients, kept)
        events = write_events(parts, root=source.folder, out=out, seed=source.seed("decode", seed))
        try:
            write_tables(events, config=Path(entry["config"]), out=out)
        except BaseException:
            shutil.rmtree(events)
            raise
    return len(conditions)


def _kept(patients: Iterator[Records], folder: Path) -> Iterator[Records]:
    """The patients, each part written to `folder` on its way: the release gate compares records."""
    for number, part in enumerate(patients):
        part.save(folder / f"{number:06d}.safetensors")
        yield part


def _patients(source: Source, *, conditions: Conditions, seed: int, on_patients: OnPatients) -> Iterator[Records]:
    """The patients, some at a time."""
    drawn = 0
    for part in stream_patients(source.model, conditions=conditions, seed=source.seed("generate", seed)):
        yield part.records
        drawn += len(part.records)
        on_patients(drawn)
