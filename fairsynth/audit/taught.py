"""The patients that a site adds when a teacher chooses them, and what a predictor makes of them.

The teacher is the sites' common model, which travels, and the site's own forest, which does not (teacher.py).

In:  the site, its generator as it uses it, a `Guide`.   Out: `Records` of the plan's quotas; counts of real patients.
Never: held-out patients; a candidate, a score or a trained predictor in what is sent.

The first candidates are kept at the site (`candidates/`), because every plan that is tried takes from the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fairsynth import artefacts
from fairsynth.audit.evaluate import HALF, blind_scores, confusion
from fairsynth.audit.fitting import Fitted
from fairsynth.audit.place import Site
from fairsynth.audit.predictors import FittedLogisticRegression, load_predictor
from fairsynth.audit.teacher import Teacher, own_model
from fairsynth.augmentation.guided import CANDIDATES, Guidance, guided
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError, ProtocolError
from fairsynth.federation.aggregate import weights_sha256
from fairsynth.federation.settling import Home, own_generator
from fairsynth.federation.terms import Guide, Terms
from fairsynth.schemas import Arrays, IntArray, SiteId
from fairsynth.synthesis.synthesise import synthesise_groups
from fairsynth.visits.cohort import load_cohort
from fairsynth.visits.records import Records

KIND = "candidates"
RECORDS = "records.safetensors"


def feedback_site(
    root: Path, *, site: SiteId, plan: StudyPlan, weights: Arrays, terms: Terms
) -> Mapping[str, IntArray]:
    """What the plan's first predictor, trained on real patients and those of `terms.guide`, does to real patients.

    `weights` are the fairness-optimised generator's as they travel. `validation` (G, 4) counts TP, FP, FN, TN at 0.5 of
    validation patients, `seen` (G, 4) of training and validation patients. Raises ArtefactError without a cohort,
    ProtocolError without a guide.
    """
    if terms.guide is None:
        raise ProtocolError.of("no guide", where="feedback", expected="a teacher and the groups' shares")
    here = Site(root=root, site=site, plan=plan, cohort=load_cohort(root))
    home = Home(site=site, cohort=here.cohort, rates=terms.rates(here.cohort, plan=plan), plan=plan)
    own = own_generator(root, home, weights=weights)
    added = taught_patients(here, own, guide=terms.guide, repeat=0)
    name = plan.audit.predictors[0]
    fitted = load_predictor(name).fit(
        Records.concatenate([here.cohort.train, added]),
        vocabulary=here.cohort.vocabulary,
        settings=here.settings,
        seed=here.seed("predictor", name, 0),  # the audit's own: what is counted here is what the audit will judge
    )
    validation = _at_half(here, fitted, here.cohort.validation)
    return {"validation": validation, "seen": validation + _at_half(here, fitted, here.cohort.train)}


def taught_patients(
    here: Site, weights: Arrays, *, guide: Guide, repeat: int, teacher: Teacher | None = None
) -> Records:
    """Patients of the plan's quotas, chosen by `guide` from candidates of the generator `weights` as the site uses it.

    Another `repeat` draws other candidates. `teacher` is `teacher_of` the guide, where the caller has it already.
    """
    vocabulary, cells = here.cohort.vocabulary, here.quotas
    candidates = _candidates(here, weights, number=CANDIDATES * cells.sum(axis=1), repeat=repeat)
    return guided(
        candidates,
        scores=blind_scores(teacher or teacher_of(here, guide), candidates, vocabulary=vocabulary),
        cells=cells,
        guidance=Guidance(selected=guide.selected),
        vocabulary=vocabulary,
        seed=here.seed("guided", repeat),
    )


def teacher_of(here: Site, guide: Guide) -> Teacher:
    """The sites' common model, as the guide brings it, and the site's own; the same for every repeat."""
    vocabulary = here.cohort.vocabulary
    return Teacher(
        common=FittedLogisticRegression(
            weights=guide.teacher[:-1], bias=float(guide.teacher[-1]), vocabulary=vocabulary
        ),
        own=own_model(
            here.cohort.train, vocabulary=vocabulary, threads=here.settings.threads, seed=here.seed("own teacher")
        ),
    )


def _candidates(here: Site, weights: Arrays, *, number: IntArray, repeat: int) -> Records:
    """`number[g]` candidates of each group; the first repeat's are drawn once and kept."""
    if repeat:
        return _drawn(here, weights, number=number, repeat=repeat)
    inputs = {**here.inputs, "weights": weights_sha256(weights)}
    if kept := _kept(here.root, inputs):
        return kept
    records = _drawn(here, weights, number=number, repeat=repeat)
    facts = {"seed": here.plan.seed, "patients": len(records), "release": "none: stays at the site"}
    with artefacts.new(here.root, kind=KIND, inputs=inputs, facts=facts) as folder:
        records.save(folder / RECORDS)
    return records


def _drawn(here: Site, weights: Arrays, *, number: IntArray, repeat: int) -> Records:
    here.progress(f"synthesising {int(number.sum())} candidates, seed {repeat + 1}")
    seed = here.seed("synthesise", "candidates", repeat)
    return synthesise_groups(weights, cohort=here.cohort, plan=here.plan, number=number, seed=seed)


def _kept(root: Path, inputs: Mapping[str, str]) -> Records | None:
    """The candidates that were kept, if they are whole, of these inputs (which say how many) and of this version."""
    try:
        manifest = artefacts.read_manifest(root / KIND, kind=KIND, verify=True)
    except ArtefactError:
        return None
    fresh = manifest["inputs"] == inputs and manifest["code_version"] == artefacts.code_version()
    return Records.load(root / KIND / RECORDS) if fresh else None


def _at_half(here: Site, fitted: Fitted, records: Records) -> IntArray:
    """(G, 4) TP, FP, FN, TN at 0.5."""
    groups = len(here.cohort.vocabulary.groups)
    predicted = np.asarray(blind_scores(fitted, records, vocabulary=here.cohort.vocabulary) >= HALF)
    return confusion(predicted, label=records.label, group=records.group, groups=groups)
