"""The audit at one site: synthetic patients made at home, four training sets, every predictor and seed, counts out.

In:  the site's cohort, the weights of both arms.   Out: `synthetic/` and `audit/` in the site's folder; an `AuditReply`
with counts, and with what FairSynth's patients changed for the site's own held-out patients.
Never: a synthetic patient, a score or a trained predictor in the reply; synthetic patients in what is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fairsynth import artefacts, plain_json
from fairsynth.audit.evaluate import HALF, Evaluation, balanced_accuracy, blind_scores, confusion, evaluate, histogram
from fairsynth.audit.fidelity import code_totals, code_visits
from fairsynth.audit.harm import Compared, site_changes
from fairsynth.audit.place import Progress, Site
from fairsynth.audit.predictors import load_predictor
from fairsynth.audit.taught import taught_patients, teacher_of
from fairsynth.audit.teacher import Teacher
from fairsynth.augmentation.baselines import Oversampled, double_prioritised
from fairsynth.augmentation.mixing import Mixed, mix
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError, ConfigError, Problem, ProtocolError
from fairsynth.fairness.verdict import SiteChange
from fairsynth.federation.aggregate import weights_sha256
from fairsynth.federation.messages import AuditReply
from fairsynth.federation.noised.rates import household_of, noised_rates
from fairsynth.federation.plans import APPROACHES, FAIRSYNTH, PLAIN, SCORE_BINS, THRESHOLDS, is_taught, plan_sha256
from fairsynth.federation.settling import Home, own_generator
from fairsynth.federation.terms import NOTHING, Guide, Terms
from fairsynth.generator.base_rates import at_home
from fairsynth.schemas import Arrays, FloatArray, IntArray, SiteId
from fairsynth.synthesis.decode import AT_HOME, write_events, write_tables
from fairsynth.synthesis.synthesise import synthesise
from fairsynth.visits.cohort import Cohort, load_cohort
from fairsynth.visits.records import Records

SELECTOR = "logistic_regression"  # judges the oversampling increments, and what synthetic patients alone teach


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """The synthetic patients of a site."""

    plain: Records  # of the plain generator, in the site's own mix of groups
    fairsynth: Records  # of the fairness-optimised generator, by the quota plan, perhaps chosen by the teacher


def audit_site(
    root: Path,
    *,
    site: SiteId,
    plan: StudyPlan,
    weights: Mapping[str, Arrays],
    terms: Terms = NOTHING,
    progress: Progress | None = None,
) -> tuple[AuditReply, Arrays]:
    """Make the site's synthetic patients, compare the approaches, and return counts of real held-out patients.

    `weights` holds the arms "plain" and "fairsynth" as they travel, without the site's base rates; `terms` is what else
    the sites settled, with a guide where the plan's candidates are taught. Writes `root/synthetic` and `root/audit`.
    The same plan, cohort, weights and terms give the same arrays. Raises ArtefactError without a cohort, ConfigError on
    an unknown predictor, ProtocolError when the terms are not those of the plan.
    """
    if missing := {PLAIN, FAIRSYNTH} - set(weights):
        raise ConfigError(
            Problem(what="missing arm", where=f"audit: {sorted(missing)[0]}", expected="plain, fairsynth")
        )
    if (terms.guide is not None) != is_taught(plan):
        raise ProtocolError.of(
            "guide not as planned", where="audit", expected="one, if and only if candidates are taught"
        )
    for name in plan.audit.predictors:
        load_predictor(name)
    cohort = load_cohort(root)
    here = Site(root=root, site=site, plan=plan, cohort=cohort, progress=progress or (lambda _: None))
    home = _at_home(here, weights, terms)
    oversampled = _oversampled(here)
    alike = _synthesise(here, home[FAIRSYNTH], "alike", cells=None, repeat=0)
    teacher = None if terms.guide is None else teacher_of(here, terms.guide)
    draw = partial(_synthetic, here, home, terms.guide, teacher)
    counts, changes = _evaluate(here, draw, oversampled)
    arrays = {**counts, **_fidelity(here, alike)}
    first = draw(0)
    _write_synthetic(here, {"plain": first.plain, "fairsynth": first.fairsynth, "alike": alike}, weights)
    reply = AuditReply(
        site=site,
        plan_sha256=plan_sha256(plan),
        approaches=APPROACHES,
        predictors=plan.audit.predictors,
        thresholds=THRESHOLDS,
        seeds=plan.audit.seeds,
        changes=changes,
    )
    _write_audit(here, reply, arrays, oversampled)
    return reply, arrays


def _at_home(here: Site, weights: Mapping[str, Arrays], terms: Terms) -> dict[str, Arrays]:
    """Both generators as the site uses them; only the fairness-optimised one settles, the plain one is HALO's."""
    rates = home_rates(here.root, here.cohort, plan=here.plan, terms=terms)
    home = Home(site=here.site, cohort=here.cohort, rates=rates, plan=here.plan)
    if here.plan.augmentation.home_rounds:
        here.progress(f"settling the generator: {here.plan.augmentation.home_rounds} rounds at home")
    return {
        PLAIN: at_home(weights[PLAIN], rates),
        FAIRSYNTH: own_generator(here.root, home, weights=weights[FAIRSYNTH]),
    }


def home_rates(root: Path, cohort: Cohort, *, plan: StudyPlan, terms: Terms) -> FloatArray:
    """(V,) what the site of this folder adds to the shared output bias; under noise, what it trained with."""
    if plan.privacy.noised:
        return noised_rates(household_of(root, plan), cohort, plan=plan)
    return terms.rates(cohort, plan=plan)


def _synthesise(here: Site, weights: Arrays, purpose: str, *, cells: IntArray | None, repeat: int) -> Records:
    """As many patients as the budget allows; another `repeat` gives other patients."""
    here.progress(f"synthesising {here.budget} patients: {purpose}, seed {repeat + 1}")
    seed = here.seed("synthesise", purpose, repeat)
    return synthesise(weights, cohort=here.cohort, plan=here.plan, cells=cells, number=here.budget, seed=seed)


def _synthetic(
    here: Site, weights: Mapping[str, Arrays], guide: Guide | None, teacher: Teacher | None, repeat: int
) -> Synthetic:
    """Both arms' patients, the same number of each."""
    fair = weights[FAIRSYNTH]
    return Synthetic(
        plain=_synthesise(here, weights[PLAIN], "plain", cells=None, repeat=repeat),
        fairsynth=_synthesise(here, fair, "fairsynth", cells=here.quotas, repeat=repeat)
        if guide is None
        else taught_patients(here, fair, guide=guide, repeat=repeat, teacher=teacher),
    )


def _oversampled(here: Site) -> Oversampled:
    """Copies of real patients; the increment is chosen on validation patients, once for all seeds."""
    here.progress("choosing the oversampling increment")
    return double_prioritised(
        here.cohort.train,
        groups=len(here.plan.groups.names),
        budget=here.budget,
        criterion=_criterion(here),
        seed=here.seed("oversample"),
    )


def _criterion(here: Site) -> Callable[[Records], float]:
    """Balanced accuracy at 0.5, mean over groups, of a selector trained on a candidate, on real validation patients."""
    cohort, seed = here.cohort, here.seed("selector")
    predictor, validation = load_predictor(SELECTOR), cohort.validation

    def score(candidate: Records) -> float:
        fitted = predictor.fit(candidate, vocabulary=cohort.vocabulary, settings=here.settings, seed=seed)
        predicted = blind_scores(fitted, validation, vocabulary=cohort.vocabulary) >= HALF
        groups = len(cohort.vocabulary.groups)
        return balanced_accuracy(confusion(predicted, label=validation.label, group=validation.group, groups=groups))

    return score


def _evaluate(
    here: Site, draw: Callable[[int], Synthetic], oversampled: Oversampled
) -> tuple[Arrays, tuple[SiteChange, ...]]:
    """`confusion`, `scores` and `synthetic` of the reply, and its `changes`.

    Each seed draws synthetic patients of its own, so that the spread over seeds holds the generator's chance too; all
    approaches share a predictor's seed. The first seed's patients are those counted in `synthetic`.
    """
    audit, groups = here.plan.audit, len(here.plan.groups.names)
    shape = (len(APPROACHES), len(audit.predictors), audit.seeds)
    arrays: Arrays = {
        "confusion": np.zeros((*shape, len(THRESHOLDS), groups, 4), dtype=np.int64),
        "scores": np.zeros((*shape, groups, 2, SCORE_BINS), dtype=np.int64),
    }
    found: dict[tuple[str, str], list[Evaluation]] = {}  # by approach and predictor, one a seed
    for repeat in range(audit.seeds):
        synthetic = draw(repeat)
        parts = {"plain": synthetic.plain, "copies": oversampled.copies, "fairsynth": synthetic.fairsynth}
        mixed = mix(here.cohort.train, **parts, groups=groups)
        if repeat == 0:
            arrays["synthetic"] = np.stack([each.added for each in mixed])
        for a, p in np.ndindex(shape[:2]):
            result = _judge(here, mixed[a], audit.predictors[p], repeat=repeat)
            arrays["confusion"][a, p, repeat], arrays["scores"][a, p, repeat] = result.confusion, result.scores
            found.setdefault((APPROACHES[a], audit.predictors[p]), []).append(result)
    compared = {
        name: Compared(real_only=found["real_only", name], fairsynth=found["fairsynth", name])
        for name in audit.predictors
    }
    return arrays, site_changes(here, compared)


def _judge(here: Site, mixed: Mixed, name: str, *, repeat: int) -> Evaluation:
    """Train one predictor on one training set, and count on real held-out patients."""
    here.progress(f"{mixed.approach}: {name}, seed {repeat + 1} of {here.plan.audit.seeds}")
    seed = here.seed("predictor", name, repeat)
    vocabulary = here.cohort.vocabulary
    fitted = load_predictor(name).fit(mixed.records, vocabulary=vocabulary, settings=here.settings, seed=seed)
    return evaluate(fitted, cohort=here.cohort)


def _fidelity(here: Site, alike: Records) -> Arrays:
    """`code_visits`, `code_totals` and `alone` of the reply.

    The synthetic patients compared are `alike`, in the site's own mix of groups: the quota plan's patients are rarer
    cases on purpose, and would differ from held-out patients even if the generator were perfect.
    """
    train, held_out = here.cohort.train, here.cohort.held_out
    parts = (train, held_out, alike)
    return {
        "code_visits": code_visits(parts, codes=len(here.cohort.vocabulary.codes)),
        "code_totals": code_totals(parts),
        "alone": np.stack([_taught_by(here, patients) for patients in (train, alike)]),
    }


def _taught_by(here: Site, patients: Records) -> IntArray:
    """(G, 2, 200) held-out scores of a predictor that saw `patients` and nobody else."""
    vocabulary, held_out = here.cohort.vocabulary, here.cohort.held_out
    seed = here.seed("predictor", SELECTOR, "alone")
    fitted = load_predictor(SELECTOR).fit(patients, vocabulary=vocabulary, settings=here.settings, seed=seed)
    scores = blind_scores(fitted, held_out, vocabulary=vocabulary)
    return histogram(scores, label=held_out.label, group=held_out.group, groups=len(vocabulary.groups))


def _write_synthetic(here: Site, synthetic: Mapping[str, Records], weights: Mapping[str, Arrays]) -> None:
    """`root/synthetic`: all records by name, and "fairsynth" as MEDS events and as the source's tables."""
    here.progress("writing synthetic patients as events and tables")
    facts = {"seed": here.plan.seed, "patients": here.budget, "release": AT_HOME}
    with artefacts.new(here.root, kind="synthetic", inputs=_inputs(here, weights), facts=facts) as folder:
        for name, records in synthetic.items():
            records.save(folder / f"{name}.safetensors")
        events = write_events(synthetic["fairsynth"], root=here.root, out=folder, seed=here.seed("decode"))
        write_tables(events, config=_config_folder(here.root), out=folder)


def _write_audit(here: Site, reply: AuditReply, arrays: Arrays, oversampled: Oversampled) -> None:
    """`root/audit`: what the reply says, kept at the site too."""
    content = artefacts.read_manifest(here.root / "synthetic", kind="synthetic")["content"]
    facts = {"oversampling_validation": list(oversampled.validation), "seed": here.plan.seed}
    with artefacts.new(here.root, kind="audit", inputs={"synthetic": content}, facts=facts) as folder:
        save_file(arrays, folder / "counts.safetensors")
        artefacts.write_json(folder / "axes.json", reply.model_dump(mode="json", exclude={"site", "changes"}))
        artefacts.write_json(
            folder / "changes.json", {here.site: [change.model_dump(mode="json") for change in reply.changes]}
        )


def kept_changes(root: Path) -> tuple[SiteChange, ...]:
    """What FairSynth's patients changed at the site of this folder, by its last audit; none before one."""
    path = root / "audit" / "changes.json"
    if not path.is_file():
        return ()
    (told,) = plain_json.read(path).values()
    return tuple(SiteChange.model_validate(one) for one in told)


def _inputs(here: Site, weights: Mapping[str, Arrays]) -> dict[str, str]:
    """The hashes of what the synthetic patients are made from."""
    hashes = {f"weights-{arm}": weights_sha256(weights[arm]) for arm in (PLAIN, FAIRSYNTH)}
    return {**here.inputs, **hashes}


def _config_folder(root: Path) -> Path:
    """The folder of `site.yaml`, named in `root/site.json`."""
    path = root / "site.json"
    if not path.is_file():
        raise ArtefactError.of("no site.json", where=str(root), do="open the site with the study first")
    return Path(plain_json.read(path)["config"])
