"""One site of a study, trained alone: raw tables -> cohort -> a generator, without a server.

In:  a study file, one of its sites.   Out: `Model`, a folder that `fairsynth generate` and `HALO.load` read.
Never: another site's tables; a model whose inputs were not checked; a model that left the site: the folder is the
site's own disk, with its events and cohort, as `sites/<site>` of a run is.

    MODEL/
      plan.json, site.json, events/, visits/, cohort/    what the site keeps of a study of itself alone
      training/                                          the state of a training under way; gone when it has ended
      generator/                                         weights, vocabulary, size, history
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairsynth import artefacts
from fairsynth.config import FitConfig, StudyConfig, StudyPlan, checked
from fairsynth.errors import ConfigError
from fairsynth.experiments.study import Checked, OnEvent, check, open_site
from fairsynth.extraction import extract
from fairsynth.generator.fit import History, epochs_of
from fairsynth.generator.resume import Resume
from fairsynth.halo import HALO, KIND
from fairsynth.visits.cohort import Cohort, encode, load_cohort, prepare, shared_vocabulary

PLAN, TRAINING = "plan.json", "training"


@dataclass(frozen=True, kw_only=True)
class Model:
    """The folder of one trained site."""

    root: Path

    @property
    def exists(self) -> bool:
        """Whether a trained generator is here."""
        return (self.root / KIND / artefacts.MANIFEST).is_file()

    @property
    def unfinished(self) -> bool:
        """Whether a training was begun here and not ended."""
        return (self.root / TRAINING).is_dir()

    @property
    def plan(self) -> StudyPlan:
        """The plan of the site alone. Raises ConfigError when there is none."""
        path = self.root / PLAN
        if not path.is_file():
            raise ConfigError.of("no trained model", where=str(self.root), do="fairsynth train STUDY --out FOLDER")
        return StudyPlan.model_validate_json(path.read_text(encoding="utf-8"))


def train(
    study: Path,
    *,
    out: Path,
    site: str | None = None,
    data: Mapping[str, Path] | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    force: bool = False,
    every_seconds: float = 60.0,
    on_event: OnEvent = lambda _: None,
) -> tuple[Model, HALO]:
    """Train the generator of one site of `study` in the folder `out`. `options` replace fields of the study's `fit`.

    The state is written about every `every_seconds`. With `resume`, a training that was killed goes on at its step, and
    a finished one is left as it is; with `force`, what an earlier one left is replaced. Raises ConfigError,
    ExtractionError or CohortError before any training,
    ArtefactError when what is to be resumed was begun with other data or another configuration.
    """
    model = Model(root=out.resolve())
    config, member = _checked(study, site=site, data=data or {})
    fitting = checked(FitConfig, {**config.fit.model_dump(), **(options or {})}, where="options")
    plan = config.plan_here().model_copy(update={"roster": (member.entry.site,), "quorum": 1, "required": ()})
    if resume and model.exists and not force:
        shutil.rmtree(model.root / TRAINING, ignore_errors=True)  # it was killed in the last moment
        return model, HALO.load(model.root, device=fitting.device)
    _make_room(model, resume=resume, force=force)
    artefacts.write_text(model.root / PLAN, plan.model_dump_json(by_alias=True, indent=2) + "\n")
    cohort = _cohort(model, member, plan=plan, on_event=on_event)
    validation = cohort.validation if len(cohort.validation) else None
    halo = HALO(plan.generator, fitting, seed=plan.seed)
    epochs = epochs_of(fitting, patients=len(cohort.train))
    on_event({"event": "fitting", "patients": len(cohort.train), "codes": len(cohort.vocabulary.codes)})
    halo.fit(
        cohort.train,
        vocabulary=cohort.vocabulary,
        validation=validation,
        resume=Resume(root=model.root / TRAINING, seconds=every_seconds),
        on_epoch=lambda history: on_event(_epoch(history, epochs=epochs)),
        on_step=lambda done, every: on_event({"event": "fit_step", "done": done, "steps": every}),
    )
    halo.save(model.root)
    shutil.rmtree(model.root / TRAINING, ignore_errors=True)
    return model, halo


def _checked(study: Path, *, site: str | None, data: Mapping[str, Path]) -> tuple[StudyConfig, Checked]:
    """The study and the one site, whose tables were looked at."""
    config, members = check(study, data=data, only=site)
    if len(members) > 1:
        known = ", ".join(member.entry.site for member in members)
        raise ConfigError.of("a study of several sites", where=str(study), expected=f"--site, one of: {known}")
    return config, members[0]


def _make_room(model: Model, *, resume: bool, force: bool) -> None:
    """Raise ConfigError when something is in the way that neither `resume` nor `force` allows for."""
    root = model.root
    ours = (root / PLAN).is_file() and not (root / "sites").exists()  # a run has a plan, and sites
    if root.exists() and any(root.iterdir()) and not ours:
        raise ConfigError.of("folder not empty, and not of a model", where=str(root), do="another --out")
    if force:
        shutil.rmtree(root / KIND, ignore_errors=True)
        shutil.rmtree(root / TRAINING, ignore_errors=True)
    elif model.exists:
        raise ConfigError.of("a model is here", where=str(root), do="another --out, or --force to replace it")
    elif model.unfinished and not resume:
        do = "--resume to go on, or --force to begin again"
        raise ConfigError.of("a training was begun here and not ended", where=str(root), do=do)


def _cohort(model: Model, member: Checked, *, plan: StudyPlan, on_event: OnEvent) -> Cohort:
    """The site's folder, up to its encoded cohort. Events are kept if unchanged."""
    here = open_site(model.root, member, on_event)
    data = model.root / "raw" if member.tables is None else member.data
    on_event({"event": "preparing", "site": here.site})
    extract(data, config=member.config, root=model.root)
    proposal = prepare(model.root, config=member.config, plan=plan)
    encode(model.root, vocabulary=shared_vocabulary(proposal.codes, plan=plan), plan=plan)
    return load_cohort(model.root)


def _epoch(history: History, *, epochs: int) -> dict[str, Any]:
    last = history.epochs[-1]
    best = history.epochs[history.best].validation
    told = {"train": last.train, "validation": last.validation, "best": best}
    return {"event": "fit_epoch", "epoch": len(history.epochs), "epochs": epochs, **told}
