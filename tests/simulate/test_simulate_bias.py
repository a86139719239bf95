"""The bias knobs: each moves what its name says, for patients of the groups it acts on, and nothing else."""

import numpy as np
import polars as pl
import pytest

from fairsynth.config import BiasConfig, SimulationConfig
from fairsynth.errors import ConfigError
from fairsynth.simulate import bias, simulate, truth
from fairsynth.simulate.calibrate import calibrated
from fairsynth.simulate.source import load

PATIENTS = 1200


def read(folder):
    """All tables of a folder, every column as text."""
    return {path.stem: pl.read_csv(path, infer_schema_length=0) for path in sorted(folder.glob("*.csv"))}


def run(folder, **knobs):
    config = SimulationConfig(source="mimic3", patients=PATIENTS, mix="study", detail=0.1, bias=BiasConfig(**knobs))
    simulate(config, folder)
    return read(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain") / "out")


@pytest.fixture(scope="module")
def white(plain):
    text = plain["ADMISSIONS"]["ETHNICITY"]
    return set(plain["ADMISSIONS"].filter(text.str.starts_with("WHITE"))["SUBJECT_ID"])


def rows(table, subjects=None):
    """A table without its row numbers, for some subjects."""
    table = table.drop("ROW_ID")
    return table if subjects is None else table.filter(pl.col("SUBJECT_ID").is_in(list(subjects)))


def test_the_defaults_are_all_zero_and_add_nothing(plain, tmp_path):
    assert set(BiasConfig().model_dump(exclude_none=True).values()) == {0.0}
    zero = run(tmp_path / "out", under_representation=0, under_documentation=0, outcome_shift=0, label_noise=0)
    assert all(zero[name].equals(plain[name]) for name in plain)


def test_under_representation_leaves_patients_out_and_changes_no_other(plain, white, tmp_path):
    biased = run(tmp_path / "out", under_representation=0.5)
    kept = set(biased["PATIENTS"]["SUBJECT_ID"])
    everybody = set(plain["PATIENTS"]["SUBJECT_ID"])
    assert white <= kept < everybody
    others = everybody - white
    assert len(kept & others) / len(others) == pytest.approx(0.5, abs=0.1)
    for name, table in plain.items():
        if "SUBJECT_ID" in table.columns:
            assert rows(biased[name]).equals(rows(table, kept)), name


def test_under_documentation_loses_codes_of_the_others_and_nothing_else(plain, white, tmp_path):
    biased = run(tmp_path / "out", under_documentation=0.4)
    for name, table in plain.items():
        if name not in ("DIAGNOSES_ICD", "PROCEDURES_ICD"):
            assert biased[name].equals(table), name
            continue
        assert rows(biased[name], white).equals(rows(table, white))
        key = ["HADM_ID", "ICD9_CODE"]
        before = table.filter(~pl.col("SUBJECT_ID").is_in(list(white)))
        after = biased[name].filter(~pl.col("SUBJECT_ID").is_in(list(white)))
        assert after.join(before, on=key, how="anti").is_empty()
        assert after.height / before.height == pytest.approx(0.6, abs=0.03)
        places = after.group_by("HADM_ID").agg(pl.col("SEQ_NUM").cast(int).sort())
        assert all(list(place) == list(range(1, len(place) + 1)) for place in places["SEQ_NUM"])


def test_label_noise_hides_deaths_of_the_others_and_nothing_else(plain, white, tmp_path):
    biased = run(tmp_path / "out", label_noise=0.4)
    for name, table in plain.items():
        if name not in ("ADMISSIONS", "PATIENTS"):
            assert biased[name].equals(table), name
    about_death = ["DEATHTIME", "DISCHARGE_LOCATION", "HOSPITAL_EXPIRE_FLAG"]
    assert biased["ADMISSIONS"].drop(about_death).equals(plain["ADMISSIONS"].drop(about_death))
    about_death = ["DOD", "DOD_HOSP", "DOD_SSN", "EXPIRE_FLAG"]
    assert biased["PATIENTS"].drop(about_death).equals(plain["PATIENTS"].drop(about_death))
    before, after = (tables["ADMISSIONS"]["HOSPITAL_EXPIRE_FLAG"].cast(int).to_numpy() for tables in (plain, biased))
    reference = plain["ADMISSIONS"]["SUBJECT_ID"].is_in(list(white)).to_numpy()
    assert (before[reference] == after[reference]).all()
    assert (after <= before).all()
    deaths = before[~reference].sum()
    assert 1 - after[~reference].sum() / deaths == pytest.approx(0.4, abs=4 * np.sqrt(0.24 / deaths))
    alive = biased["ADMISSIONS"].filter(pl.col("HOSPITAL_EXPIRE_FLAG") == "0")
    assert "DEAD/EXPIRED" not in set(alive["DISCHARGE_LOCATION"])


def test_outcome_shift_changes_who_dies_among_the_others_and_nothing_else(plain, white, tmp_path):
    biased = run(tmp_path / "out", outcome_shift=1.0)
    changed = {"DEATHTIME", "DISCHARGE_LOCATION", "HOSPITAL_EXPIRE_FLAG", "DOD", "DOD_HOSP", "DOD_SSN", "EXPIRE_FLAG"}
    both = set(biased["ADMISSIONS"]["HADM_ID"]) & set(plain["ADMISSIONS"]["HADM_ID"])
    for name, table in plain.items():
        if "SUBJECT_ID" not in table.columns:
            continue
        assert rows(biased[name], white).equals(rows(table, white)), name
        if "HADM_ID" in table.columns:  # visits that take place under both models are the same but for the outcome
            here = pl.col("HADM_ID").is_in(list(both))
            one, other = (rows(frame).filter(here).drop(changed, strict=False) for frame in (table, biased[name]))
            assert one.equals(other), name
    flags = [tables["ADMISSIONS"].select("HADM_ID", "HOSPITAL_EXPIRE_FLAG") for tables in (plain, biased)]
    joined = flags[0].join(flags[1], on="HADM_ID")
    assert (joined["HOSPITAL_EXPIRE_FLAG"] != joined["HOSPITAL_EXPIRE_FLAG_right"]).any()


def test_outcome_shift_turns_the_others_risks_away_and_keeps_their_mean():
    drawn = {
        shift: truth.draw(
            SimulationConfig(source="mimic3", patients=6000, mix="study", bias=BiasConfig(outcome_shift=shift))
        )
        for shift in (0.0, 0.5, 1.0)
    }
    risks = {}
    for shift, population in drawn.items():
        first = (population.visits.order == 0) & ~population.visit_is_reference
        risks[shift] = population.visits.risk[first]
    assert risks[0.5].mean() == pytest.approx(risks[0.0].mean(), abs=0.012)
    assert risks[1.0].mean() == pytest.approx(risks[0.0].mean(), abs=0.012)
    logits = {shift: np.log(risk / (1 - risk)) for shift, risk in risks.items()}
    half, full = (np.corrcoef(logits[0.0], logits[shift])[0, 1] for shift in (0.5, 1.0))
    assert full < half < 0.97
    assert full < 0.75


@pytest.mark.parametrize("source", ["mimic3", "pic"])
def test_rotation_keeps_the_length_and_turns_by_the_stated_angle(source):
    conditions = load(source).conditions
    spread = np.sqrt(conditions.prevalence * (1 - conditions.prevalence))
    v = conditions.death * spread
    for shift in (0.0, 0.25, 0.5, 1.0):
        turned = bias.rotated(load(source), outcome_shift=shift) * spread
        assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(v), rel=1e-9)
        assert turned @ v / (v @ v) == pytest.approx(np.cos(shift * np.pi / 2), abs=1e-9)


def test_the_reference_groups_model_does_not_turn():
    plain, shifted = calibrated("pic"), calibrated("pic", outcome_shift=1.0)
    assert (plain.outcome.conditions[0] == shifted.outcome.conditions[0]).all()
    assert (plain.outcome.units[0] == shifted.outcome.units[0]).all()
    assert (plain.outcome.conditions[1] == plain.outcome.conditions[0]).all()
    assert not np.allclose(shifted.outcome.conditions[1], shifted.outcome.conditions[0])


# --- bias planted in groups of one's own choice -----------------------------------------------------------------------


def test_bias_planted_in_the_reference_group_is_the_mirror_image_of_the_default(plain, white, tmp_path):
    mirrored = run(tmp_path / "out", under_documentation=0.4, groups=("white",))
    others = set(plain["ADMISSIONS"]["SUBJECT_ID"]) - white
    for name in ("DIAGNOSES_ICD", "PROCEDURES_ICD"):
        assert rows(mirrored[name], others).equals(rows(plain[name], others))
        kept = rows(mirrored[name], white).height / rows(plain[name], white).height
        assert kept == pytest.approx(0.6, abs=0.03)
    assert mirrored["ADMISSIONS"].equals(plain["ADMISSIONS"])


def test_naming_every_group_but_the_reference_is_the_default(tmp_path):
    named = run(
        tmp_path / "named", under_documentation=0.4, label_noise=0.3, groups=("black", "hispanic", "asian", "other")
    )
    default = run(tmp_path / "default", under_documentation=0.4, label_noise=0.3)
    assert all(named[name].equals(default[name]) for name in default)


@pytest.mark.parametrize("knob", ["under_representation", "outcome_shift", "label_noise"])
def test_every_other_knob_acts_on_the_named_groups_alone_too(knob):
    config = SimulationConfig(source="mimic3", patients=2000, mix="study")
    plain = truth.draw(config)
    biased = truth.draw(config.model_copy(update={"bias": BiasConfig(groups=("black",), **{knob: 0.45})}))
    black = [index for index, group in enumerate(load("mimic3").groups.group) if group == "black"]

    def seen(population, *, of_black):
        patient = population.visits.patient
        mine = np.isin(population.patients.ethnicity[patient], black) == of_black
        number = population.patients.number[patient][mine]
        return set(zip(number, population.visits.order[mine], population.visits.recorded[mine], strict=True))

    assert seen(biased, of_black=False) == seen(plain, of_black=False)
    assert seen(biased, of_black=True) != seen(plain, of_black=True)


def test_only_what_tells_of_danger_is_lost_where_that_is_asked_for(plain, white, tmp_path):
    biased = run(tmp_path / "out", under_documentation=0.6, undocumented="danger")
    others = set(plain["ADMISSIONS"]["SUBJECT_ID"]) - white
    for name, table in plain.items():
        if name not in ("DIAGNOSES_ICD", "PROCEDURES_ICD", "LABEVENTS"):
            assert biased[name].equals(table), name
        elif name != "LABEVENTS":
            assert rows(biased[name], white).equals(rows(table, white))
    risky = {"4280", "51881", "5849", "99592"}  # heart failure, respiratory failure, kidney failure, sepsis
    harmless = {"4019", "2724"}  # hypertension, raised lipids
    before, after = (rows(tables["DIAGNOSES_ICD"], others)["ICD9_CODE"] for tables in (plain, biased))
    assert after.is_in(list(harmless)).sum() == before.is_in(list(harmless)).sum() > 0
    assert after.is_in(list(risky)).sum() / before.is_in(list(risky)).sum() == pytest.approx(0.4, abs=0.06)
    before, after = (rows(tables["LABEVENTS"], others)["FLAG"] for tables in (plain, biased))
    assert after.is_null().sum() == before.is_null().sum()  # MIMIC-III flags what is abnormal, and nothing else
    assert after.drop_nulls().len() / before.drop_nulls().len() == pytest.approx(0.4, abs=0.03)
    assert rows(biased["LABEVENTS"], white).equals(rows(plain["LABEVENTS"], white))


@pytest.mark.parametrize("source", ["mimic3", "pic"])
def test_dangerous_codes_are_those_that_the_dying_have_more_often(source):
    drawn = truth.draw(SimulationConfig(source=source, patients=6000, seed=4))
    tables = load(source)
    deadly = drawn.visits.conditions @ tables.conditions.death  # (V,) log-odds
    strength = drawn.visits.conditions @ tables.diagnoses.weights[: len(tables.conditions.names)]  # (V, M)
    slopes = np.array([np.cov(deadly, column)[0, 1] for column in strength.T])
    found = bias.dangerous(tables, tables.diagnoses)
    assert found.sum() > len(found) / 2
    assert slopes[found].mean() > 2 * slopes[~found].mean()


def test_bias_in_a_group_that_the_source_lacks_is_refused_before_anything_is_written(tmp_path):
    config = SimulationConfig(source="pic", patients=10, bias=BiasConfig(groups=("han", "white")))
    with pytest.raises(ConfigError, match=r"unknown group: bias\.groups: white.*\n? *expected one of: .*han"):
        simulate(config, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_simulation_that_names_no_group_is_known_by_the_stamp_it_always_had():
    bias = SimulationConfig(source="pic").model_dump(mode="json", exclude_none=True)["bias"]
    assert set(bias) == {"under_representation", "under_documentation", "outcome_shift", "label_noise"}
