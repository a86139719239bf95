"""A setting's raw tables -> all patients of every site, encoded once: what experiments draw their patients from.

In:  a study file.   Out: `Pool`, kept in a folder and read from there the next time.
Never: a split. Who trains, who validates and who is held out is another draw for every seed (`drawing`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairsynth import artefacts
from fairsynth.config import StudyConfig, StudyPlan
from fairsynth.experiments.study import Checked, check, open_site
from fairsynth.extraction import extract
from fairsynth.schemas import SiteId
from fairsynth.visits.cohort import encode, load_cohort, plan_sha256, prepare, shared_vocabulary
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

OnEvent = Callable[[dict[str, Any]], None]

_MOST = {"train": 0.98, "validation": 0.01, "held_out": 0.01}  # a cohort needs three parts; a pool joins them again


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """All patients of a setting."""

    study: StudyConfig
    vocabulary: Vocabulary
    sites: Mapping[SiteId, Records]

    @property
    def plan(self) -> StudyPlan:
        """The setting's plan."""
        return self.study.plan_here()


def read_pool(
    study: Path, *, work: Path, data: Mapping[str, Path] | None = None, on_event: OnEvent = lambda _: None
) -> Pool:
    """The pool of the study file `study`, made in `work` unless an equal one is there.

    `data` overrides a site's folder of tables. Raises ConfigError, ExtractionError or CohortError.
    """
    config, sites = check(study, data=data)
    split = config.split.model_copy(update=_MOST)
    plan = config.plan_here().model_copy(update={"split": split})
    wanted = artefacts.sha256_json([plan_sha256(plan), [_source(site) for site in sites], artefacts.code_version()])
    stamp = work / "pool.sha256"
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == wanted):
        stamp.unlink(missing_ok=True)
        _make(sites, plan, work=work, on_event=on_event)
        artefacts.write_text(stamp, wanted + "\n")
    cohorts = {site.entry.site: load_cohort(work / site.entry.site) for site in sites}
    found = next(iter(cohorts.values())).vocabulary
    joined = {name: Records.concatenate([one.train, one.validation, one.held_out]) for name, one in cohorts.items()}
    return Pool(study=config, vocabulary=found, sites={name: joined[name] for name in sorted(joined)})


def _make(sites: list[Checked], plan: StudyPlan, *, work: Path, on_event: OnEvent) -> None:
    """Extract and encode every site with the union of their codes."""
    codes: set[str] = set()
    for site in sites:
        folder = work / site.entry.site
        folder.mkdir(parents=True, exist_ok=True)
        opened = open_site(folder, site, on_event)
        on_event({"event": "preparing", "site": opened.site})
        extract(folder / "raw" if site.tables is None else site.data, config=site.config, root=folder)
        codes |= set(prepare(folder, config=site.config, plan=plan).codes)
        for part in ("raw", "raw.sha256") if site.tables is None else ():  # gigabytes that nobody reads again
            shutil.rmtree(folder / part, ignore_errors=True)
            (folder / part).unlink(missing_ok=True)
    vocabulary = shared_vocabulary(codes, plan=plan)
    for site in sites:
        folder = work / site.entry.site
        encode(folder, vocabulary=vocabulary, plan=plan)
        for part in ("events", "visits"):
            shutil.rmtree(folder / part, ignore_errors=True)


def sources(study: Path, *, data: Mapping[str, Path]) -> list[object]:
    """What the patients of the study file `study` follow from, site by site: simulations, or hashes of tables.

    Raises what reading the study raises.
    """
    return [_source(site) for site in check(study, data=data)[1]]


def _source(site: Checked) -> object:
    """What the site's patients follow from."""
    if site.entry.simulate is not None and site.tables is None:
        return [
            site.entry.simulate.model_dump(mode="json", exclude_defaults=True),
            artefacts.sha256_folder(site.config),
        ]
    return [artefacts.sha256_folder(site.data), artefacts.sha256_folder(site.config)]
