"""Study file -> finished run: every site of the study on this machine, each in its own folder.

In:  a study file, an engine.   Out: `Run`, a folder with `sites/<site>/`, `server/` and `report.html`.
Never: a site that reads another site's folder; training before every input was checked.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fairsynth import artefacts
from fairsynth.audit.predictors import load_predictor
from fairsynth.config import SiteEntry, StudyConfig, StudyPlan, read_site, read_study
from fairsynth.errors import ConfigError, FairSynthError, combined
from fairsynth.experiments.engines import Engine
from fairsynth.extraction.checks import TablesReport, check_tables
from fairsynth.extraction.rules import read_source
from fairsynth.fairness.objectives import load_objective
from fairsynth.federation.boundary import approve
from fairsynth.federation.engine import Site, find_app, run_deployment, run_simulation
from fairsynth.federation.masking.local import sign_here
from fairsynth.federation.masking.roster import read_roster_file
from fairsynth.federation.messages import EnrolRequest
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.rounds import check_pooled
from fairsynth.federation.server_folder import has_finished, is_begun, is_taken
from fairsynth.federation.site import enrol
from fairsynth.governance.approval import LOCAL_RUN
from fairsynth.operations.network import run_network
from fairsynth.report import build
from fairsynth.schemas import SiteId
from fairsynth.simulate import simulate
from fairsynth.visits.groups import read_groups
from fairsynth.visits.tasks import load_task

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The folder of one run."""

    root: Path

    @property
    def server(self) -> Path:
        """What the server keeps: plan, journal, global generators, pooled counts."""
        return self.root / "server"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"

    @property
    def plan(self) -> StudyPlan:
        """The plan that the run followed. Raises ConfigError when there is no run here."""
        path = self.server / "plan.json"
        if not path.is_file():
            raise ConfigError.of("no finished run", where=str(self.root), do="fairsynth study STUDY --out FOLDER")
        return StudyPlan.model_validate_json(path.read_text(encoding="utf-8"))

    @property
    def is_here(self) -> bool:
        """Whether its sites are on this machine."""
        return (self.root / "sites").is_dir()

    def site(self, name: str) -> Path:
        """The folder of one site. Raises ConfigError when the run has no such site on this machine."""
        folder = self.root / "sites" / name
        if not (folder / "site.json").is_file():
            known = ", ".join(sorted(path.parent.name for path in self.root.glob("sites/*/site.json")))
            raise ConfigError.of("no such site in this run", where=name, expected=f"one of: {known}")
        return folder


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How the consortium's SuperLink is reached: the provisioned server folder; past the proxy with an `address`."""

    server: Path
    roster: Path | None = None  # of a masked study, signed by every site
    address: str | None = None


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One site that may take part: its entry, its configuration folder and its tables."""

    entry: SiteEntry
    config: Path
    data: Path
    tables: TablesReport | None  # None: still to be simulated


def check(
    study: Path, *, data: Mapping[str, Path] | None = None, only: str | None = None
) -> tuple[StudyConfig, list[Checked]]:
    """Check a study file, what it names, and every site's tables (or those of `only`); all problems at once, nothing is
    written."""
    config = read_study(study)
    errors: list[FairSynthError] = list(_names(config))
    sites: list[Checked] = []
    overrides = _overrides(config, data or {})
    for entry in config.sites if only is None else [_entry(config, only)]:
        try:
            sites.append(_check_site(entry, study.parent, overrides.get(entry.site)))
        except FairSynthError as error:
            errors.append(error)
    if errors:
        raise combined(errors)
    return config, sites


def run_study(
    study: Path,
    *,
    out: Path,
    engine: Engine = Engine.simulation,
    data: Mapping[str, Path] | None = None,
    force: bool = False,
    on_event: OnEvent = lambda _: None,
) -> Run:
    """Run the study at `study` and write its report. `data` overrides a site's folder of tables.

    Raises ConfigError, ExtractionError or CohortError before any training, EngineError when Flower fails.
    """
    find_app()
    config, sites = check(study, data=data)
    result = Run(root=out.resolve())
    _prepare_folder(result, force=force)
    on_event({"event": "checked", "sites": [site.entry.site for site in sites]})
    members = [open_site(result.root / "sites" / site.entry.site, site, on_event) for site in sites]
    plan = config.plan()
    plan_path = result.root / "plan.json"
    artefacts.write_text(plan_path, plan.model_dump_json(by_alias=True, indent=2) + "\n")
    _rehearse(members, plan, on_event)
    _approve(members, plan, on_event)
    if plan.privacy.masked and len(members) > 1:
        sign_here(plan, {member.site: member.folder for member in members}, server=result.server)
    return _started(result, members, engine=engine, on_event=on_event)


def resume_study(
    study: Path, *, out: Path, engine: Engine = Engine.simulation, on_event: OnEvent = lambda _: None
) -> Run:
    """Go on with the study at `study`, begun in `out`, from its last committed round; then write its report.

    The result is the one of a study that never stopped. Nothing is checked, extracted or approved again: sites answer
    as they did. Raises ConfigError when `out` has no such study, EngineError when Flower fails.
    """
    result, plan = Run(root=out.resolve()), read_study(study).plan()
    if plan_sha256(result.plan) != plan_sha256(plan):
        raise ConfigError.of(
            "another study is in this folder",
            where=str(result.root),
            expected=f"the study of {study.name} as it began",
            do="resume with the study file unchanged, or start in another folder",
        )
    if is_taken(result.server):
        raise ConfigError.of(
            "the study still runs", where=str(result.root), do="wait for its end, or stop its processes"
        )
    members = [Site(site=site, folder=result.site(site)) for site in plan.roster]
    on_event({"event": "checked", "sites": list(plan.roster)})
    return _started(result, members, engine=engine, on_event=on_event, resume=True)


def _started(result: Run, members: Sequence[Site], *, engine: Engine, on_event: OnEvent, resume: bool = False) -> Run:
    """Run the study that was prepared, unless it has finished; write its report."""
    if not (resume and has_finished(result.server)):
        start = run_simulation if engine is Engine.simulation else run_deployment
        plan = result.root / "plan.json"
        start(find_app(), plan=plan, workdir=result.server, sites=members, on_event=on_event, resume=resume)
    build(result.server, out=result.report)
    on_event({"event": "report", "path": str(result.report)})
    return result


def run_among_hospitals(
    plan: StudyPlan, reached: Reached, *, out: Path, resume: bool = False, on_event: OnEvent = lambda _: None
) -> Run:
    """Run the study of `plan` with the sites of a consortium, or go on with it; then write its report.

    Raises as `operations.network.run_network`.
    """
    result = Run(root=out.resolve())
    run_network(
        find_app(),
        plan=plan,
        server=reached.server,
        workdir=result.server,
        roster=read_roster_file(reached.roster) if reached.roster else None,
        resume=resume,
        address=reached.address,
        on_event=on_event,
    )
    build(result.server, out=result.report)
    on_event({"event": "report", "path": str(result.report)})
    return result


def _approve(members: Sequence[Site], plan: StudyPlan, on_event: OnEvent) -> None:
    """Each site's approval, by the one operator that all sites of a local run have; each policy still has its say.

    Between hospitals an officer of each site gives it: `fairsynth approve`.
    """
    for member in members:
        approve(member.folder, plan, officer=LOCAL_RUN)
    on_event({"event": "approved", "sites": [member.site for member in members], "officer": LOCAL_RUN})


def _rehearse(members: Sequence[Site], plan: StudyPlan, on_event: OnEvent) -> None:
    """Each site's enrolment, here and now: what is wrong with its data is told in full before Flower starts.

    Between hospitals only a code would come back; on one machine the operator is every site's own.
    """
    request = EnrolRequest(plan=plan).pack()
    cells = {}
    for member in members:
        on_event({"event": "preparing", "site": member.site})
        cells[member.site] = enrol(member.folder, request).arrays["members"].astype(np.int64)
    check_pooled(plan, cells)


def _names(config: StudyConfig) -> Iterator[FairSynthError]:
    """What is wrong with what the study names: objective, task, predictors."""
    loaders: list[Callable[[], object]] = [
        lambda: load_objective(config.objective),
        lambda: load_task(config.task.name),
        *(partial(load_predictor, name) for name in config.audit.predictors),
    ]
    for load in loaders:
        try:
            load()
        except FairSynthError as error:
            yield error


def check_names(config: StudyConfig) -> None:
    """Raise ConfigError when the study names an objective, a task or a predictor that is not installed."""
    if errors := list(_names(config)):
        raise combined(errors)


def _entry(config: StudyConfig, site: str) -> SiteEntry:
    known = {str(entry.site): entry for entry in config.sites}
    if site not in known:
        raise ConfigError.of("unknown site", where=site, expected=f"one of: {', '.join(known)}")
    return known[site]


def _overrides(config: StudyConfig, data: Mapping[str, Path]) -> Mapping[str, Path]:
    known = {entry.site for entry in config.sites}
    if unknown := sorted(set(data) - known):
        raise ConfigError.of("unknown site", where=f"--data {unknown[0]}=...", expected=f"one of: {sorted(known)}")
    return data


def _check_site(entry: SiteEntry, base: Path, override: Path | None) -> Checked:
    if entry.config is None:
        raise ConfigError.of(
            "a site that is elsewhere",
            where=f"sites -> {entry.site}",
            expected="`config`, and `data` or `simulate`, of every site of a study on one machine",
            do="name them, or write the plan for several hospitals with `fairsynth plan` (docs/runbook.md)",
        )
    config = (base / entry.config).resolve()
    read_groups(config / read_site(config).groups)
    read_source(config)
    if entry.simulate is not None and override is None:
        return Checked(entry=entry, config=config, data=Path(), tables=None)
    data = (override or base / str(entry.data)).resolve()
    if not data.is_dir():
        raise ConfigError.of(
            "missing folder of tables",
            where=f"site {entry.site}: {data}",
            do=f"correct `data`, or give --data {entry.site}=FOLDER; docs/data.md says where open data is to be had",
        )
    return Checked(entry=entry, config=config, data=data, tables=check_tables(data, config=config))


def _prepare_folder(result: Run, *, force: bool) -> None:
    """Make room for the run. With `force`, an earlier run's results go; tables and events are reused if unchanged."""
    if result.root.exists() and any(result.root.iterdir()):
        if is_taken(result.server):
            raise ConfigError.of(
                "a study runs here", where=str(result.root), do="wait for its end or stop it, or another --out"
            )
        if not (result.root / "sites").is_dir():
            raise ConfigError.of("not the folder of a run", where=str(result.root), do="another --out")
        if (result.server / "plan.json").exists() and not force:
            on = "--resume to go on with it, " if is_begun(result.server) else ""
            do = f"{on}another --out, or --force to replace it"
            raise ConfigError.of("a run is here", where=str(result.root), do=do)
        shutil.rmtree(result.server, ignore_errors=True)
        result.report.unlink(missing_ok=True)
    result.server.mkdir(parents=True, exist_ok=True)


def open_site(folder: Path, site: Checked, on_event: OnEvent) -> Site:
    """Write the site's folder: its tables if they are simulated, and `site.json`."""
    name: SiteId = site.entry.site
    data = site.data
    if site.tables is None and site.entry.simulate is not None:
        data = folder / "raw"
        wanted = artefacts.sha256_json(
            {"code": artefacts.code_version(), **site.entry.simulate.model_dump(mode="json", exclude_none=True)}
        )
        stamp = folder / "raw.sha256"
        if not (data.is_dir() and stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == wanted):
            on_event({"event": "simulating", "site": name, "patients": site.entry.simulate.patients})
            shutil.rmtree(data, ignore_errors=True)
            simulate(site.entry.simulate, data)
            artefacts.write_text(stamp, wanted + "\n")
    artefacts.write_json(folder / "site.json", {"site": name, "config": str(site.config), "data": str(data)})
    return Site(site=name, folder=folder)
