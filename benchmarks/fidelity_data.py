"""The two data sets of `benchmarks.fidelity`, prepared as a study prepares them: one whole site, split 80/10/10.

In:  Diabetes-130's table, or the simulator's process; a folder to work in.   Out: a `Cohort`, read again the next time.
Never: a patient in two splits.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairsynth.config import SimulationConfig, StudyPlan, read_study
from fairsynth.extraction import extract
from fairsynth.simulate import simulate
from fairsynth.visits.cohort import COHORT, Cohort, encode, load_cohort, plan_sha256, prepare, shared_vocabulary

ROOT = Path(__file__).resolve().parents[1]
SPLIT = {"train": 0.8, "validation": 0.1, "held_out": 0.1}
DATA_SETS = ("diabetes130", "mimic3")


def cohort_of(name: str, *, work: Path, patients: int) -> Cohort:
    """The cohort of data set `name`, kept below `work`; `patients` is how many to simulate, where that is done."""
    return diabetes130(work) if name == "diabetes130" else simulated(work, patients=patients)


def diabetes130(work: Path) -> Cohort:
    """All patients of Diabetes-130 as one site: will they be readmitted within 30 days?"""
    study = read_study(ROOT / "studies" / "diabetes130.yaml")
    plan = study.plan().model_copy(update={"split": study.split.model_copy(update=SPLIT)})
    folder = work / "diabetes130"
    with _kept(folder, plan) as missing:
        if missing:
            config = _whole_site(folder / "config")
            _prepare(folder, tables=ROOT / "studies" / str(study.sites[0].data), config=config, plan=plan)
    return load_cohort(folder)


def simulated(work: Path, *, patients: int) -> Cohort:
    """`patients` of the simulated MIMIC-III, minorities large enough to be estimated: will they die in the hospital?"""
    study = read_study(ROOT / "studies" / "demo.yaml")
    groups = study.groups.model_copy(update={"names": study.groups.names[:5], "reference": ("white",)})
    split = study.split.model_copy(update=SPLIT)
    plan = study.plan().model_copy(update={"groups": groups, "split": split})
    source = SimulationConfig(source="mimic3", patients=patients, seed=1, mix="study", detail=0.05)
    folder = work / f"mimic3-{patients}"
    with _kept(folder, plan) as missing:
        if missing:
            simulate(source, folder / "raw")
            _prepare(folder, tables=folder / "raw", config=ROOT / "site_configs" / "mimic3", plan=plan)
    return load_cohort(folder)


def _prepare(folder: Path, *, tables: Path, config: Path, plan: StudyPlan) -> None:
    extract(tables, config=config, root=folder)
    proposal = prepare(folder, config=config, plan=plan)
    encode(folder, vocabulary=shared_vocabulary(proposal.codes, plan=plan), plan=plan)


def _whole_site(config: Path) -> Path:
    """A site's configuration without the line that divides the patients by payer."""
    shared = ROOT / "site_configs" / "diabetes130"
    config.mkdir(parents=True)
    for name in ("rules.yaml", "groups.yaml"):
        shutil.copy(shared / name, config / name)
    lines = (shared / "medicare" / "site.yaml").read_text(encoding="utf-8").replace("../", "").splitlines()
    kept = [line for line in lines if not line.startswith(("#", "first_visit:"))]
    (config / "site.yaml").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return config


@contextmanager
def _kept(folder: Path, plan: StudyPlan) -> Iterator[bool]:
    """Whether the cohort must be made anew; what an earlier plan or a killed run left is removed first."""
    stamp = folder / "plan.sha256"
    wanted = plan_sha256(plan)
    if (folder / COHORT).is_dir() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        yield False
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield True
    stamp.write_text(wanted, encoding="utf-8")
