"""The process: its marginals are the published ones, its parameters know no seed, and it has structure to learn."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from fairsynth.config import BiasConfig, SimulationConfig
from fairsynth.simulate import calibrate, content, simulate, truth
from fairsynth.simulate.outcome import alive_before, chance_alive_before
from fairsynth.simulate.source import load


@pytest.fixture(scope="module")
def adults():
    return truth.draw(SimulationConfig(source="mimic3", patients=10_000, seed=11))


@pytest.fixture(scope="module")
def children():
    return truth.draw(SimulationConfig(source="pic", patients=10_000, seed=11))


def years(population):
    return population.visits.age_days / 365.25


# --- marginals; tolerances are about four standard errors of the sample ---------------------------------------------


def test_mimic3_mortality_is_that_of_adults_in_all_and_by_unit(adults):
    visits = adults.visits
    assert visits.died.mean() == pytest.approx(0.1155, abs=0.012)
    published = {"CCU": 0.113, "CSRU": 0.046, "MICU": 0.145, "SICU": 0.126, "TSICU": 0.114}
    for unit, name in enumerate(adults.source.units.names):
        assert visits.risk[visits.unit == unit].mean() == pytest.approx(published[name], abs=0.02)


def test_pic_mortality_is_published_in_all_and_by_unit(children):
    visits = children.visits
    assert visits.died.mean() == pytest.approx(0.0722, abs=0.011)
    published = {"CICU": 0.020, "General ICU": 0.153, "NICU": 0.075, "PICU": 0.098, "SICU": 0.020}
    shares = {"CICU": 0.196, "General ICU": 0.203, "NICU": 0.238, "PICU": 0.155, "SICU": 0.208}
    for unit, name in enumerate(children.source.units.names):
        assert visits.risk[visits.unit == unit].mean() == pytest.approx(published[name], abs=0.012)
        assert (visits.unit == unit).mean() == pytest.approx(shares[name], abs=0.025)


def test_admissions_per_patient_follow_the_published_counts(adults, children):
    for population, share, mean in (
        (adults, {1: 0.838, 2: 0.1109, 3: 0.0288, 4: 0.0109}, 1.268),
        (children, {1: 0.9637, 2: 0.0314}, 1.044),
    ):
        number = np.bincount(population.visits.patient)
        assert number.mean() == pytest.approx(mean, abs=0.03)
        for visits, wanted in share.items():
            assert (number == visits).mean() == pytest.approx(wanted, abs=0.013)


def test_ages_stays_and_sexes_are_those_of_the_source(adults, children):
    assert np.percentile(years(adults), [25, 50, 75]) == pytest.approx([52.8, 65.8, 77.8], abs=2)
    assert np.percentile(adults.visits.stay / 1440, [25, 50, 75]) == pytest.approx([4.0, 6.9, 11.9], rel=0.1)
    assert np.percentile(adults.visits.icu / 1440, [25, 50, 75]) == pytest.approx([1.2, 2.1, 4.2], rel=0.2)
    assert adults.patients.female.mean() == pytest.approx(0.438, abs=0.02)
    assert years(children).mean() == pytest.approx(2.48, abs=0.25)
    assert np.percentile(children.visits.stay / 1440, [25, 50, 75]) == pytest.approx([7.0, 12.2, 21.0], rel=0.15)
    for unit, wanted in (("CICU", 2.46), ("General ICU", 3.78), ("PICU", 3.62), ("SICU", 3.16)):
        here = children.visits.unit == children.source.units.names.index(unit)
        assert years(children)[here].mean() == pytest.approx(wanted, rel=0.25)
    newborn = children.visits.unit == children.source.units.names.index("NICU")
    assert years(children)[newborn].mean() == pytest.approx(0.04, abs=0.02)
    for unit, days in enumerate((16.6, 12.8, 27.1, 14.5, 14.7)):
        assert (children.visits.stay / 1440)[children.visits.unit == unit].mean() == pytest.approx(days, rel=0.12)


def test_the_mixes_have_their_stated_groups_and_the_same_patients_otherwise():
    shares = {}
    for source in ("mimic3", "pic"):
        for mix in ("natural", "study"):
            drawn = truth.draw(SimulationConfig(source=source, patients=6_000, mix=mix))
            names = np.array(drawn.source.groups.names)[drawn.patients.ethnicity]
            shares[source, mix] = names, drawn
    natural, study = shares["mimic3", "natural"][0], shares["mimic3", "study"][0]
    assert np.char.startswith(natural, "WHITE").mean() == pytest.approx(0.701, abs=0.025)
    for start, share in (("WHITE", 0.60), ("BLACK", 0.14), ("HISPANIC", 0.10), ("ASIAN", 0.08)):
        assert np.char.startswith(study, start).mean() == pytest.approx(share, abs=0.025)
    assert (shares["pic", "natural"][0] == "Han ethnic").mean() == pytest.approx(0.989, abs=0.006)
    for name, share in (("Han", 0.5), ("Yi", 0.1), ("Buyei", 0.1), ("Miao", 0.1), ("Tujia", 0.1), ("Hui", 0.1)):
        assert (shares["pic", "study"][0] == f"{name} ethnic").mean() == pytest.approx(share, abs=0.025)
    one, other = shares["mimic3", "natural"][1].patients, shares["mimic3", "study"][1].patients
    assert (one.frailty == other.frailty).all()
    assert (one.kind == other.kind).all()


def test_minorities_do_not_simply_die_more(adults):
    effect = dict(zip(adults.source.groups.names, adults.source.groups.log_odds, strict=True))
    assert effect["WHITE"] == 0
    assert effect["BLACK/AFRICAN AMERICAN"] < 0 < effect["UNKNOWN/NOT SPECIFIED"]
    assert max(abs(value) for value in effect.values()) <= 0.5
    assert not load("pic").groups.log_odds.any()


def test_the_twenty_most_frequent_diagnoses_have_their_published_share_of_patients(mimic3):
    patients = {"4019": 17_613, "41401": 10_775, "42731": 10_271, "4280": 9_843, "5849": 7_687, "2724": 7_465}
    patients |= {"25000": 7_370, "51881": 6_719, "5990": 5_779, "2720": 5_335, "53081": 5_272, "2859": 4_993}
    patients |= {"486": 4_423, "2851": 4_241, "2762": 4_177, "2449": 3_819, "496": 3_592, "99592": 3_560}
    patients |= {"0389": 3_433, "5070": 3_396}
    number = mimic3["PATIENTS"].height
    with_code = dict(mimic3["DIAGNOSES_ICD"].group_by("ICD9_CODE").agg(pl.col("SUBJECT_ID").n_unique()).iter_rows())
    for code, count in patients.items():
        share = count / 38_597  # adults
        assert with_code[code] / number == pytest.approx(share, abs=4 * np.sqrt(share / number) + 0.01), code


def test_rows_per_admission_are_those_of_the_source(mimic3, pic):
    stays = mimic3["ADMISSIONS"].height
    assert mimic3["DIAGNOSES_ICD"].height / stays == pytest.approx(11.04, rel=0.06)
    assert mimic3["PROCEDURES_ICD"].height / stays == pytest.approx(4.07, rel=0.08)
    per_stay = mimic3["DIAGNOSES_ICD"].group_by("HADM_ID").len()["len"]
    assert per_stay.len() == stays  # every admission has one
    assert per_stay.max() <= 39
    assert mimic3["LABEVENTS"].drop_nulls("HADM_ID").height / stays == pytest.approx(38.1, rel=0.12)
    assert pic["LABEVENTS"].height / pic["LABEVENTS"]["HADM_ID"].n_unique() == pytest.approx(80, rel=0.12)
    assert pic["PRESCRIPTIONS"]["HADM_ID"].n_unique() / pic["ADMISSIONS"].height == pytest.approx(0.515, abs=0.05)
    assert mimic3["ICUSTAYS"].height / stays == pytest.approx(1.073, abs=0.03)


def test_pic_diagnoses_fall_into_the_published_chapters(pic):
    counts = {"Q": 3397, "P": 1885, "J": 1375, "R": 1272, "K": 1009, "I": 765, "G": 759, "N": 421}
    first = pic["DIAGNOSES_ICD"]["ICD10_CODE_CN"].str.head(1)
    for chapter, count in counts.items():
        assert (first == chapter).mean() == pytest.approx(count / 13_449, abs=0.035), chapter


def test_laboratory_values_are_near_the_demos_medians_in_the_sources_units(mimic3, pic):
    # medians of the open MIMIC-III demo; SI medians by conversion of what children have
    wanted = {"50931": (119, "mg/dL"), "50912": (0.9, "mg/dL"), "50983": (139, "mEq/L"), "51222": (9.7, "g/dL")}
    for item, (median, unit) in wanted.items():
        rows = mimic3["LABEVENTS"].filter(pl.col("ITEMID") == item)
        assert rows["VALUENUM"].cast(float).median() == pytest.approx(median, rel=0.25)
        assert set(rows["VALUEUOM"]) == {unit}
    labels = dict(pic["D_LABITEMS"].select("LABEL", "ITEMID").iter_rows())
    for label, low, high, unit in (("Creatinine", 25, 70, "umol/L"), ("Glucose", 4, 8, "mmol/L")):
        rows = pic["LABEVENTS"].filter(pl.col("ITEMID") == labels[label])
        assert low < rows["VALUENUM"].cast(float).median() < high
        assert set(rows["VALUEUOM"]) == {unit}


# --- the process knows no seed ---------------------------------------------------------------------------------------


def test_the_process_is_the_same_whatever_was_drawn_before():
    before = calibrate.calibrated("pic")
    calibrate._solved.cache_clear()
    truth.draw(SimulationConfig(source="pic", patients=50, seed=99))
    after = calibrate.calibrated("pic")
    assert (before.course.conditions == after.course.conditions).all()
    assert (before.outcome.units == after.outcome.units).all()
    assert (before.diagnoses == after.diagnoses).all()


def test_another_seed_gives_fresh_patients_of_the_same_process(adults):
    other = truth.draw(SimulationConfig(source="mimic3", patients=10_000, seed=12))
    assert not np.isin(other.patients.frailty, adults.patients.frailty).any()
    first = [population.visits.conditions[population.visits.order == 0].mean(axis=0) for population in (adults, other)]
    prevalence = adults.source.conditions.prevalence
    error = np.sqrt(prevalence * (1 - prevalence) / 10_000)
    assert (np.abs(first[0] - first[1]) < 5 * np.sqrt(2) * error).all()
    assert (np.abs(first[0] - prevalence) < 5 * error + 0.01).all()


def test_the_truth_is_about_the_patients_in_the_tables(mimic3):
    population = truth.draw(SimulationConfig(source="mimic3", patients=1500))
    admissions = mimic3["ADMISSIONS"]
    assert admissions["HADM_ID"].cast(int).to_list() == (100_000 + population.visits.number).tolist()
    assert admissions["HOSPITAL_EXPIRE_FLAG"].cast(int).to_list() == population.visits.recorded.astype(int).tolist()
    names = np.array(population.source.groups.names)[population.patients.ethnicity[population.visits.patient]]
    assert admissions["ETHNICITY"].to_list() == names.tolist()


def test_deaths_happen_at_the_true_risk(adults):
    visits = adults.visits
    edges = np.quantile(visits.risk, np.linspace(0, 1, 6))
    for low, high in pairwise(edges):
        here = (visits.risk >= low) & (visits.risk <= high)
        error = np.sqrt((visits.risk[here] * (1 - visits.risk[here])).sum()) / here.sum()
        assert abs(visits.died[here].mean() - visits.risk[here].mean()) < 4 * error


def test_a_visit_takes_place_only_if_no_earlier_one_was_fatal():
    population = truth.draw(SimulationConfig(source="mimic3", patients=300, seed=5))
    died = np.random.default_rng(0).random(len(population.visits.order)) < 0.3
    expected, alive = [], {}
    for patient, fatal in zip(population.visits.patient, died, strict=True):
        expected.append(alive.get(patient, True))
        alive[patient] = alive.get(patient, True) and not fatal
    assert alive_before(population, died).tolist() == expected


def test_the_chance_to_reach_a_visit_is_the_product_of_earlier_survival():
    population = truth.draw(SimulationConfig(source="mimic3", patients=300, seed=5))
    risk = np.random.default_rng(1).random(len(population.visits.order)) * 0.5
    expected, reached = [], {}
    for patient, chance in zip(population.visits.patient, risk, strict=True):
        expected.append(reached.get(patient, 1.0))
        reached[patient] = reached.get(patient, 1.0) * (1 - chance)
    assert chance_alive_before(population, risk) == pytest.approx(np.array(expected), abs=1e-12)


def test_intercepts_are_solved_to_their_targets():
    slopes = np.random.default_rng(2).normal(0, 4, (500, 6))
    target = np.array([0.001, 0.05, 0.2, 0.5, 0.9, 0.456])
    shift = calibrate._solve(lambda value: expit(slopes + value).mean(axis=0), target)
    assert expit(slopes + shift).mean(axis=0) == pytest.approx(target, rel=1e-5)


# --- there is something to learn -------------------------------------------------------------------------------------


def presence(admissions, table, column):
    rows = table.drop_nulls("HADM_ID").select("HADM_ID", column).unique().with_columns(one=1.0)
    wide = rows.pivot(on=column, index="HADM_ID", values="one")
    return (
        admissions.select("HADM_ID").join(wide, on="HADM_ID", how="left", maintain_order="left").fill_null(0.0)[:, 1:]
    )


def mean_labs(admissions, table):
    rows = table.drop_nulls("HADM_ID").with_columns(pl.col("VALUENUM").cast(float)).group_by("HADM_ID", "ITEMID")
    wide = rows.agg(pl.col("VALUENUM").mean()).sort("ITEMID").pivot(on="ITEMID", index="HADM_ID", values="VALUENUM")
    joined = admissions.select("HADM_ID").join(wide, on="HADM_ID", how="left", maintain_order="left")[:, 1:]
    return joined.with_columns(pl.all().fill_null(pl.all().median()).rank())


@pytest.mark.parametrize(("source", "column"), [("mimic3", "ICD9_CODE"), ("pic", "ICD10_CODE_CN")])
def test_a_logistic_regression_on_codes_and_labs_predicts_death_well_but_not_perfectly(source, column, tmp_path):
    simulate(SimulationConfig(source=source, patients=5000, seed=4, detail=0.1), tmp_path / "out")
    tables = {path.stem: pl.read_csv(path, infer_schema_length=0) for path in (tmp_path / "out").iterdir()}
    admissions = tables["ADMISSIONS"]
    parts = [
        presence(admissions, tables["DIAGNOSES_ICD"], column),
        presence(admissions, tables["ICUSTAYS"], "FIRST_CAREUNIT"),
        mean_labs(admissions, tables["LABEVENTS"]),
    ]
    values = StandardScaler().fit_transform(np.concatenate([part.to_numpy() for part in parts], axis=1))
    label = admissions["HOSPITAL_EXPIRE_FLAG"].cast(int).to_numpy()
    train = admissions["SUBJECT_ID"].cast(int).to_numpy() % 3 > 0
    model = LogisticRegression(C=0.01, max_iter=500).fit(values[train], label[train])
    area = roc_auc_score(label[~train], model.predict_proba(values[~train])[:, 1])
    assert 0.75 < area < 0.88


def test_codes_of_a_visit_hang_together_through_conditions(mimic3):
    codes = mimic3["DIAGNOSES_ICD"].select("HADM_ID", "ICD9_CODE")
    stays = mimic3["ADMISSIONS"].height
    have = {
        code: set(codes.filter(pl.col("ICD9_CODE") == code)["HADM_ID"]) for code in ("0389", "99592", "4019", "42731")
    }
    together = len(have["0389"] & have["99592"]) / stays
    assert together > 2.5 * len(have["0389"]) * len(have["99592"]) / stays**2


def test_visits_of_a_patient_depend_on_each_other(adults):
    visits = adults.visits
    second = np.flatnonzero(visits.order == 1)
    first = second - 1
    assert (visits.patient[first] == visits.patient[second]).all()
    assert 0.5 < np.corrcoef(visits.severity[first], visits.severity[second])[0, 1] < 0.9
    chronic = adults.source.conditions.chronic
    assert not (visits.conditions[first] & ~visits.conditions[second])[:, chronic].any()
    assert (visits.conditions[second] & ~visits.conditions[first])[:, chronic].any()  # and some begin
    frail = adults.patients.frailty > 0.5
    number = np.bincount(visits.patient)
    assert number[frail].mean() > number[~frail].mean()
    gap = np.log(visits.gap[second])
    assert np.corrcoef(gap, visits.severity[second])[0, 1] < -0.1


def test_given_conditions_and_severity_a_value_does_not_know_the_outcome():
    part = next(iter(truth.parts(SimulationConfig(source="mimic3", patients=200, detail=0.1))))
    everyone_lives = replace(part, seen=np.ones_like(part.seen))
    all_rows, seen_rows = (content.labs(one, detail=0.1, knobs=BiasConfig()) for one in (everyone_lives, part))
    keep = part.seen[all_rows.visit]
    assert (all_rows.value[keep] == seen_rows.value).all()
