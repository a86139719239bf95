from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from fairsynth import artefacts
from fairsynth.audit.site import audit_site
from fairsynth.augmentation.plan import equal_rates, members_of
from fairsynth.config import (
    AuditConfig,
    AugmentationConfig,
    GeneratorConfig,
    GroupsConfig,
    ObjectiveConfig,
    PrivacyConfig,
    SplitConfig,
    StudyPlan,
    TaskConfig,
    TrainingConfig,
    VocabularyConfig,
)
from fairsynth.errors import ArtefactError, ConfigError, ReleaseBlocked
from fairsynth.extraction import extract
from fairsynth.fairness.metrics import auroc, f1
from fairsynth.federation.plans import plan_sha256
from fairsynth.generator.base_rates import at_home, base_rates, to_share
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Study, Totals, train
from fairsynth.schemas import Arrays, SiteId
from fairsynth.synthesis.release.check import check_release
from fairsynth.synthesis.release.export import Override, export
from fairsynth.synthesis.release.gates import Outcome
from fairsynth.visits.cohort import encode, load_cohort, prepare, shared_vocabulary
from fairsynth.visits.records import Records

CONFIG = Path(__file__).resolve().parents[2] / "site_configs" / "mimic3"
SITE = SiteId("site-a")
BUDGET = 120
PLAN = StudyPlan(
    name="toy",
    privacy=PrivacyConfig(),
    seed=11,
    roster=(SITE,),
    quorum=1,
    task=TaskConfig(),
    split=SplitConfig(train=0.6, validation=0.2, held_out=0.2),
    groups=GroupsConfig(names=("white", "black", "hispanic", "asian", "other"), reference=("white",)),
    vocabulary=VocabularyConfig(minimum_patients=2),
    objective=ObjectiveConfig(),
    generator=GeneratorConfig(embedding=16, layers=1, heads=2, maximum_visits=4),
    training=TrainingConfig(),
    augmentation=AugmentationConfig(synthetic_patients=BUDGET),
    audit=AuditConfig(seeds=2),
)


def write_tables(folder: Path) -> Path:
    """150 made-up patients with one visit each, in MIMIC-III's format; every fourth is black, every fifth dies."""
    rows: dict[str, list[str]] = {
        "PATIENTS": ["SUBJECT_ID,GENDER,DOB,DOD"],
        "ADMISSIONS": [
            "SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,DISCHARGE_LOCATION,ETHNICITY,"
            "HOSPITAL_EXPIRE_FLAG"
        ],
        "ICUSTAYS": ["SUBJECT_ID,HADM_ID,FIRST_CAREUNIT,INTIME"],
        "DIAGNOSES_ICD": ["SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE"],
        "PROCEDURES_ICD": ["SUBJECT_ID,HADM_ID,ICD9_CODE"],
        "PRESCRIPTIONS": ["SUBJECT_ID,HADM_ID,STARTDATE,DRUG"],
        "LABEVENTS": ["SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUENUM,VALUEUOM"],
        "D_ICD_DIAGNOSES": ["ICD9_CODE,LONG_TITLE", "0389,Septicemia", "4280,Heart failure"],
        "D_ICD_PROCEDURES": ["ICD9_CODE,LONG_TITLE", "3961,Extracorporeal circulation"],
        "D_LABITEMS": ["ITEMID,LABEL,LOINC_CODE", "50912,Creatinine,2160-0"],
    }
    for number in range(150):
        patient, visit = 1000 + number, 5000 + number
        dies, ethnicity = number % 5 == 0, "BLACK/AFRICAN AMERICAN" if number % 4 == 0 else "WHITE"
        death = "2150-01-08 10:00:00" if dies else ""
        where = "DEAD/EXPIRED" if dies else "HOME"
        rows["PATIENTS"].append(f"{patient},{'MF'[number % 2]},{2070 + number % 50}-03-05 00:00:00,{death}")
        rows["ADMISSIONS"].append(
            f"{patient},{visit},2150-01-01 08:00:00,2150-01-08 12:00:00,{death},EMERGENCY,{where},"
            f"{ethnicity},{int(dies)}"
        )
        rows["ICUSTAYS"].append(f"{patient},{visit},MICU,2150-01-01 09:00:00")
        for order, code in enumerate(["0389", "5849"] if dies else ["4280", "25000"]):
            rows["DIAGNOSES_ICD"].append(f"{patient},{visit},{order},{code}")
        rows["PROCEDURES_ICD"].append(f"{patient},{visit},3961")
        rows["PRESCRIPTIONS"].append(f"{patient},{visit},2150-01-01 00:00:00,Heparin")
        rows["LABEVENTS"].append(f"{patient},{visit},50912,2150-01-01 10:00:00,{1 + number % 7 / 2},mg/dL")
    folder.mkdir(parents=True)
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """The folder of a site with an encoded cohort."""
    root = tmp_path_factory.mktemp("audit") / "site"
    data = write_tables(root.parent / "tables")
    artefacts.write_json(root / "site.json", {"site": SITE, "config": str(CONFIG), "data": str(data)})
    extract(data, config=CONFIG, root=root)
    proposal = prepare(root, config=CONFIG, plan=PLAN)
    encode(root, vocabulary=shared_vocabulary(proposal.codes, plan=PLAN), plan=PLAN)
    return root


@pytest.fixture(scope="module")
def weights(prepared) -> dict[str, Arrays]:
    cohort = load_cohort(prepared)
    totals = Totals(patients=len(cohort.train), positions=cohort.train.visits / len(cohort.train) + 1)
    study = Study(vocabulary=cohort.vocabulary, plan=PLAN, totals=totals, learning_rate=1e-2)
    rates = base_rates(cohort.train, vocabulary=cohort.vocabulary)
    first = at_home(initial_weights(cohort.vocabulary, PLAN.generator, seed=1), rates)
    trained = [
        train(first, records=cohort.train, study=study, coefficients=None, epochs=epochs, seed=1).weights
        for epochs in (40, 60)
    ]
    return dict(zip(("plain", "fairsynth"), (to_share(one, rates) for one in trained), strict=True))


@pytest.fixture(scope="module")
def audited(prepared, weights):
    lines: list[str] = []
    reply, arrays = audit_site(prepared, site=SITE, plan=PLAN, weights=weights, progress=lines.append)
    return prepared, reply, arrays, lines


def again(prepared: Path, folder: Path, weights: dict[str, Arrays], plan: StudyPlan = PLAN) -> Arrays:
    """The arrays of a second audit in a copy of the site's folder."""
    shutil.copytree(prepared, folder)
    return audit_site(folder, site=SITE, plan=plan, weights=weights)[1]


def test_the_reply_has_the_arrays_that_the_protocol_documents(audited):
    root, reply, arrays, _ = audited
    codes = len(load_cohort(root).vocabulary.codes)
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
        "confusion": ((4, 2, 2, 2, 5, 4), "int64"),
        "scores": ((4, 2, 2, 5, 2, 200), "int64"),
        "synthetic": ((4, 5, 2), "int64"),
        "code_visits": ((3, codes), "int64"),
        "code_totals": ((3,), "int64"),
        "alone": ((2, 5, 2, 200), "int64"),
    }
    assert reply.plan_sha256 == plan_sha256(PLAN)
    assert (reply.site, reply.predictors, reply.seeds) == (SITE, PLAN.audit.predictors, 2)
    assert reply.approaches == ("real_only", "plain_synthetic", "oversampled", "fairsynth")
    assert reply.thresholds == ("half", "tuned")


def test_every_count_is_of_the_real_held_out_patients(audited):
    root, _, arrays, _ = audited
    held_out = load_cohort(root).held_out
    cells = members_of(held_out.group, held_out.label, groups=5)
    assert (arrays["scores"].sum(axis=-1) == cells).all()
    assert (arrays["confusion"][..., [0, 2]].sum(axis=-1) == cells[:, 1]).all()
    assert (arrays["confusion"][..., [1, 3]].sum(axis=-1) == cells[:, 0]).all()


def test_the_confusion_at_a_half_is_in_the_histogram_of_scores(audited):
    _, _, arrays, _ = audited
    assert (arrays["scores"][..., 1, 100:].sum(axis=-1) == arrays["confusion"][..., 0, :, 0]).all()
    assert (arrays["scores"][..., 0, 100:].sum(axis=-1) == arrays["confusion"][..., 0, :, 1]).all()


def test_what_changed_is_fairsynth_minus_real_patients_alone_on_the_held_out(audited):
    _, reply, arrays, _ = audited
    axes = [(one.predictor, one.threshold) for one in reply.changes]
    assert axes == [(predictor, threshold) for predictor in reply.predictors for threshold in reply.thresholds]
    for index, change in enumerate(reply.changes):
        p, h = divmod(index, len(reply.thresholds))
        before, after = (f1(arrays["confusion"][a, p, :, h].sum(axis=-2)) for a in (0, 3))  # (K,)
        assert change.f1.seeds == 2
        assert change.f1.mean == pytest.approx((after - before).mean())


def test_each_approach_adds_what_the_plan_allows(audited):
    root, _, arrays, _ = audited
    real = load_cohort(root).train
    members = members_of(real.group, real.label, groups=5)
    nobody, plain, copies, fairsynth = arrays["synthetic"]
    assert nobody.sum() == 0
    assert plain.sum() == BUDGET
    assert 0 < copies.sum() <= BUDGET
    assert fairsynth.tolist() == equal_rates(members, budget=BUDGET).tolist()
    assert fairsynth[3].sum() == 0  # nobody here is Asian


def test_the_synthetic_patients_stay_in_the_site_folder_as_records_events_and_tables(audited):
    root, _, arrays, _ = audited
    folder = root / "synthetic"
    artefacts.read_manifest(folder, kind="synthetic", verify=True)
    stored = {name: Records.load(folder / f"{name}.safetensors") for name in ("plain", "fairsynth", "alike")}
    assert [len(each) for each in stored.values()] == [BUDGET] * 3
    for row, name in ((1, "plain"), (3, "fairsynth")):
        cells = members_of(stored[name].group, stored[name].label, groups=5)
        assert cells.tolist() == arrays["synthetic"][row].tolist()
    served = set(load_cohort(root).train.group.tolist())
    assert set(stored["plain"].group.tolist()) <= served
    events = pl.read_parquet(folder / "events" / "data" / "0.parquet")
    assert events["subject_id"].n_unique() == BUDGET
    assert {path.stem.upper() for path in (folder / "tables").glob("*.csv")} >= {"PATIENTS", "ADMISSIONS"}


def test_code_visits_are_those_of_training_held_out_and_synthetic_patients(audited):
    root, _, arrays, _ = audited
    cohort = load_cohort(root)
    parts = (cohort.train, cohort.held_out, Records.load(root / "synthetic" / "alike.safetensors"))
    for row, total, part in zip(arrays["code_visits"], arrays["code_totals"], parts, strict=True):
        visits = np.split(part.codes, part.visit_offsets[1:-1])
        assert total == len(visits)
        assert row.tolist() == [sum(code in visit for visit in visits) for code in range(len(row))]


def test_what_real_and_what_synthetic_patients_alone_teach_is_scored_on_held_out_patients(audited):
    root, _, arrays, _ = audited
    cohort = load_cohort(root)
    cells = members_of(cohort.held_out.group, cohort.held_out.label, groups=5)
    assert (arrays["alone"].sum(axis=-1) == cells).all()
    real, synthetic = auroc(arrays["alone"].sum(axis=1))
    assert real == 1  # in these tables the dead have codes of their own
    assert synthetic > 0.9


def test_the_audit_artefact_is_what_was_replied(audited):
    root, reply, arrays, _ = audited
    manifest = artefacts.read_manifest(root / "audit", kind="audit", verify=True)
    assert manifest["inputs"]["synthetic"] == artefacts.read_manifest(root / "synthetic", kind="synthetic")["content"]
    stored = load_file(root / "audit" / "counts.safetensors")
    assert {name: array.tolist() for name, array in stored.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    axes = json.loads((root / "audit" / "axes.json").read_text(encoding="utf-8"))
    assert axes == json.loads(reply.model_dump_json(exclude={"site", "changes"}))
    told = json.loads((root / "audit" / "changes.json").read_text(encoding="utf-8"))
    assert told == {SITE: [json.loads(change.model_dump_json()) for change in reply.changes]}


def test_the_same_plan_cohort_and_weights_give_the_same_arrays(audited, weights, tmp_path):
    root, _, arrays, _ = audited
    second = again(root, tmp_path / "site", weights)
    assert all(np.array_equal(second[name], arrays[name]) for name in arrays)


def test_other_weights_change_the_synthetic_approaches_alone(audited, weights, tmp_path):
    root, _, arrays, _ = audited
    swapped = again(root, tmp_path / "site", {"plain": weights["fairsynth"], "fairsynth": weights["plain"]})
    same = [np.array_equal(new, old) for new, old in zip(swapped["scores"], arrays["scores"], strict=True)]
    assert same == [True, False, True, False]


def test_progress_names_every_fit(audited):
    lines = audited[3]
    fits = [line for line in lines if "seed" in line and "of 2" in line]
    assert len(fits) == 4 * 2 * 2 == len(set(fits))
    assert any("oversampling" in line for line in lines)


def test_a_missing_arm_is_refused_before_anything_is_written(prepared, weights, tmp_path):
    shutil.copytree(prepared / "cohort", tmp_path / "cohort")
    with pytest.raises(ConfigError, match="fairsynth"):
        audit_site(tmp_path, site=SITE, plan=PLAN, weights={"plain": weights["plain"]})
    assert not (tmp_path / "synthetic").exists()


def test_a_site_without_a_cohort_is_told_so(tmp_path, weights):
    with pytest.raises(ArtefactError, match="cohort"):
        audit_site(tmp_path, site=SITE, plan=PLAN, weights=weights)


def test_an_unknown_predictor_is_refused_before_anything_is_written(prepared, weights, tmp_path):
    shutil.copytree(prepared / "cohort", tmp_path / "cohort")
    plan = PLAN.model_copy(update={"audit": AuditConfig(predictors=("oracle",))})
    with pytest.raises(ConfigError, match="oracle"):
        audit_site(tmp_path, site=SITE, plan=plan, weights=weights)
    assert not (tmp_path / "synthetic").exists()


def test_the_release_gate_reads_what_the_audit_wrote_and_lets_too_small_a_site_out_by_name_only(audited, tmp_path):
    root = tmp_path / "site"
    shutil.copytree(audited[0], root)
    artefacts.write_text(root / "plan.json", PLAN.model_dump_json(by_alias=True))
    report = check_release(root)
    assert report.verdict.results[0].verdict is Outcome.inconclusive
    with pytest.raises(ReleaseBlocked, match="G0 enough patients: INCONCLUSIVE"):
        export(root, out=tmp_path / "out")
    officer = Override(officer="A. Officer", reason="simulated patients alone")
    made = export(root, out=tmp_path / "out", override=officer)
    card = json.loads((made / "card.json").read_text(encoding="utf-8"))
    assert (card["patients"], card["study"], card["officer"]) == (BUDGET, "toy", "A. Officer")
    assert not list(made.rglob("*.safetensors"))
