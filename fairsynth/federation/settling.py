"""What a site makes of the common generator at home: its own rates, then some passes over its own patients alone.

In:  the common weights as they travel, the site's cohort.   Out: weights as the site uses them; the artefact `home/`.
Never: a fairness term; validation or held-out patients; anything that is sent.

A generator of an adults' and of a children's hospital gives each a little of the other. Passes over the site's own
patients take that back and keep most of what the other taught (docs/decisions/011-a-teacher-chooses.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.federation.aggregate import weights_sha256
from fairsynth.federation.plans import learning_rate, plan_sha256
from fairsynth.generator import checkpoint
from fairsynth.generator.base_rates import at_home, to_share
from fairsynth.generator.train import Moments, Study, Totals, train
from fairsynth.schemas import Arrays, FloatArray, SiteId
from fairsynth.seeds import stream
from fairsynth.visits.cohort import Cohort

KIND = "home"
HOME_RATE = 3e-4  # learning rate of the first round at home; it falls as the plan's does


@dataclass(frozen=True, kw_only=True, eq=False)
class Common:
    """A generator as sites share it, and the optimiser's moments where they are known."""

    weights: Arrays
    moments: Moments | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Home:
    """Where it settles: a site, its patients, the `rates` (V,) that it adds to the output bias, the study's plan."""

    site: SiteId
    cohort: Cohort
    rates: FloatArray
    plan: StudyPlan


def settled(common: Common, home: Home, *, rounds: int, seed: int) -> Common:
    """`common` after `rounds` of the site alone, each of `training.local_epochs` passes over its training patients.

    Without moments, one pass more is made first that moves nothing and finds them. Raises ProtocolError when the
    weights do not fit the study.
    """
    if not rounds:
        return common
    training = home.plan.training.model_copy(update={"rounds": rounds, "learning_rate": HOME_RATE})
    plan = home.plan.model_copy(update={"training": training})
    train_records = home.cohort.train
    patients = len(train_records)
    totals = Totals(patients=patients, positions=(train_records.visits + patients) / patients)
    study = Study(vocabulary=home.cohort.vocabulary, plan=plan, totals=totals)

    def go_on(now: Common, *, rate: float, number: int) -> Common:
        trained = train(
            at_home(now.weights, home.rates),
            records=train_records,
            study=replace(study, learning_rate=rate, moments=now.moments),
            coefficients=None,
            epochs=training.local_epochs,
            seed=stream(seed, "train", home.site, number),
        )
        return Common(weights=to_share(trained.weights, home.rates), moments=trained.moments)

    if common.moments is None:
        common = replace(common, moments=go_on(common, rate=0.0, number=rounds).moments)
    for number in range(rounds):
        common = go_on(common, rate=learning_rate(plan, round_number=number), number=number)
    return common


def own_generator(root: Path, home: Home, *, weights: Arrays) -> Arrays:
    """The common `weights`, as they travel, as the site uses them: settled for the plan's rounds at home.

    It is made once for a plan, a cohort and weights, and kept in `root/home`. Raises ArtefactError without a cohort,
    ProtocolError when the weights do not fit the study.
    """
    common, rounds = at_home(weights, home.rates), home.plan.augmentation.home_rounds
    if not rounds:
        return common
    inputs = {
        "cohort": str(artefacts.read_manifest(root / "cohort", kind="cohort")["content"]),
        "plan": plan_sha256(home.plan),
        "weights": weights_sha256(common),  # with the rates
    }
    if kept := _kept(root, inputs):
        return kept
    seed = stream(home.plan.seed, "home")
    found = at_home(settled(Common(weights=weights), home, rounds=rounds, seed=seed).weights, home.rates)
    checkpoint.save(
        root,
        kind=KIND,
        weights=found,
        vocabulary=home.cohort.vocabulary,
        config=home.plan.generator,
        inputs=inputs,
        facts={"seed": home.plan.seed, "rounds": rounds, "release": "none: stays at the site"},
    )
    return found


def _kept(root: Path, inputs: Mapping[str, str]) -> Arrays | None:
    """What was kept, if it is whole, of these inputs and of this version."""
    try:
        manifest = artefacts.read_manifest(root / KIND, kind=KIND)
        if manifest["inputs"] != inputs or manifest["code_version"] != artefacts.code_version():
            return None
        return checkpoint.load(root / KIND, kind=KIND).weights
    except ArtefactError:
        return None
