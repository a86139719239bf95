"""Events -> cohort on a hand-written site: what is proposed, encoded, loaded, decodable; and every bad input."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from visits_stories import GROUPS, Story, study_plan, write_events

from fairsynth import artefacts
from fairsynth.errors import ArtefactError, CohortError, ConfigError
from fairsynth.schemas import SPLITS
from fairsynth.visits.cohort import encode, load_cohort, plan_sha256, prepare, shared_vocabulary
from fairsynth.visits.decoder import DECODER_SCHEMA, decoder
from fairsynth.visits.groups import read_groups
from fairsynth.visits.labs import BINS, labs_by_loinc
from fairsynth.visits.records import Records

STORY_CODES = {
    "DX//CCS//108",
    "DX//CCS//157",
    "GAP//7-29d",
    "LAB//2160-0//normal",
    "LOS//3-6d",
    "PX//CLASS//cardiopulmonary_bypass",
    "RX//heparin",
    "UNIT//MICU",
}


def build(root, folder, plan, codes=None):
    proposal = prepare(root, config=folder, plan=plan)
    vocabulary = shared_vocabulary(proposal.codes if codes is None else codes, plan=plan)
    return proposal, encode(root, vocabulary=vocabulary, plan=plan), load_cohort(root)


def everyone(cohort) -> Records:
    return Records.concatenate([getattr(cohort, name) for name in SPLITS])


# --- what comes out --------------------------------------------------------------------------------------------------


def test_a_site_proposes_the_codes_of_its_training_patients(twenty, config):
    proposal = prepare(twenty, config=config(), plan=study_plan())
    assert proposal.codes == dict.fromkeys(sorted(STORY_CODES), 16)
    assert proposal.visits == 32
    assert proposal.members.shape == (3, 2)
    assert proposal.members.sum() == 16
    assert proposal.flow["patients_with_a_positive_label"] == 4


def test_codes_that_too_few_training_patients_carry_are_not_proposed(twenty, config):
    assert prepare(twenty, config=config(), plan=study_plan(vocabulary={"minimum_patients": 17})).codes == {}
    assert len(prepare(twenty, config=config(), plan=study_plan(vocabulary={"minimum_patients": 16})).codes) == 8
    capped = study_plan(vocabulary={"minimum_patients": 1, "maximum_codes": 3})
    assert len(prepare(twenty, config=config(), plan=capped).codes) == 3


def test_a_group_with_nobody_at_this_site_is_recorded_and_is_no_error(twenty, config):
    proposal = prepare(twenty, config=config(), plan=study_plan())
    assert proposal.members[2].tolist() == [0, 0]
    manifest = artefacts.read_manifest(twenty / "visits", kind="visits", verify=True)
    assert manifest["facts"]["groups_without_patients"] == ["asian"]


def test_every_patient_is_encoded_once_with_its_group_label_sex_age_and_phenotypes(twenty, config):
    _, encoded, cohort = build(twenty, config(), study_plan())
    names = np.array(cohort.vocabulary.names)
    records = everyone(cohort)
    assert encoded.cells.sum() == len(records) == 20
    assert encoded.cells.sum(axis=(1, 2)).tolist() == [16, 2, 2]
    assert encoded.cells.sum(axis=0).tolist() == np.array([[8, 2], [8, 2], [0, 0]]).tolist()
    for row in range(len(records)):
        context = set(names[records.context[slice(*records.context_offsets[row : row + 2])]])
        group = cohort.vocabulary.groups[records.group[row]]
        sex = {"white": "male", "black": "female"}[group]
        label = {"LABEL"} if records.label[row] else set()
        phenotypes = {"PHENOTYPE//congestive_heart_failure", "PHENOTYPE//acute_renal_failure"}
        assert context == {f"GROUP//{group}", f"SEX//{sex}", "AGE//50-59"} | label | phenotypes
    first = names[records.codes[slice(*records.visit_offsets[:2])]].tolist()
    assert first == ["DX//CCS//108", "LAB//2160-0//normal", "LOS//3-6d"]


def test_token_ids_are_sorted_and_unique_in_every_visit(twenty, config):
    records = everyone(build(twenty, config(), study_plan())[2])
    for offsets, values in ((records.visit_offsets, records.codes), (records.context_offsets, records.context)):
        for start, stop in pairwise(offsets):
            assert values[start:stop].tolist() == sorted(set(values[start:stop].tolist()))


def test_a_visit_without_a_known_token_stays_as_an_empty_visit(twenty, config):
    _, encoded, cohort = build(twenty, config(), study_plan(), codes=["UNIT//MICU"])
    assert cohort.train.visit_counts.tolist() == [2] * 16
    assert np.diff(cohort.train.visit_offsets).tolist() == [0, 1] * 16
    assert encoded.mapped_share == pytest.approx(1 / 8)


def test_the_shared_vocabulary_is_sorted_and_takes_phenotypes_from_the_plan():
    plan = study_plan(vocabulary={"phenotypes": False})
    vocabulary = shared_vocabulary(["b", "a", "b"], plan=plan)
    assert vocabulary.codes == ("a", "b")
    assert vocabulary.groups == ("white", "black", "asian")
    assert vocabulary.phenotypes == ()
    assert len(shared_vocabulary([], plan=study_plan()).phenotypes) == 25


def test_the_same_input_gives_the_same_bytes(twenty, config):
    build(twenty, config(), study_plan())
    first = {kind: artefacts.read_manifest(twenty / kind, kind=kind)["content"] for kind in ("visits", "cohort")}
    build(twenty, config(), study_plan())
    assert first == {
        kind: artefacts.read_manifest(twenty / kind, kind=kind)["content"] for kind in ("visits", "cohort")
    }


def test_the_order_of_the_events_does_not_matter(twenty, config, tmp_path):
    events = pl.read_parquet(twenty / "events" / "data" / "0.parquet")
    other = write_events(tmp_path / "other", events.sample(fraction=1, shuffle=True, seed=1).rows())
    for root in (twenty, other):
        build(root, config(), study_plan())
    hashes = [artefacts.read_manifest(root / "cohort", kind="cohort")["content"] for root in (twenty, other)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("shards", [2, 7, 20])
def test_the_cohort_does_not_depend_on_the_number_of_shards(twenty, config, tmp_path, shards):
    events = pl.read_parquet(twenty / "events" / "data" / "0.parquet").rows()
    other = write_events(tmp_path / "other", events, shards=shards)
    folder = config(cohort="{exclude_codes: [DIAG//ICD9CM//5849]}")
    build(twenty, folder, study_plan())
    build(other, folder, study_plan())
    for name in ("flow.json", "patients.parquet", "tokens.parquet", "sources.parquet"):
        assert (other / "visits" / name).read_bytes() == (twenty / "visits" / name).read_bytes()


@pytest.mark.parametrize("level", ["category", "source"])
def test_at_every_level_the_site_can_go_back_to_its_own_codes_and_keeps_its_phenotypes(twenty, config, level):
    names = ("diagnoses", "procedures", "drugs")
    levels = dict(zip(names, (level, level, "source"), strict=True))
    plan = study_plan(vocabulary={"minimum_patients": 1, "levels": levels})
    _, _, cohort = build(twenty, config(), plan)
    rows = pl.read_parquet(twenty / "cohort" / "decoder.parquet")
    back = {
        "category": {"DX//ICD9//428": "DIAG//ICD9CM//4280", "PX//ICD9//39": "PROC//ICD9PROC//3961"},
        "source": {"DX//ICD9CM//4280": "DIAG//ICD9CM//4280", "PX//ICD9PROC//3961": "PROC//ICD9PROC//3961"},
    }[level] | {"RX//Heparin Sodium": "DRUG//Heparin Sodium"}
    assert {token: rows.filter(token=token)["source_code"].to_list() for token in back} == {
        token: [code] for token, code in back.items()
    }
    names = np.array(cohort.vocabulary.names)
    phenotypes = {"PHENOTYPE//congestive_heart_failure", "PHENOTYPE//acute_renal_failure"}
    assert all(phenotypes <= set(names[everyone(cohort).context[start:stop]]) for start, stop in _spans(cohort))


def _spans(cohort):
    return pairwise(everyone(cohort).context_offsets)


def test_the_level_is_part_of_what_names_the_study():
    plain, category = study_plan(), study_plan(vocabulary={"levels": {"diagnoses": "category"}})
    assert plan_sha256(plain) != plan_sha256(category)
    assert plan_sha256(plain) == plan_sha256(
        study_plan(vocabulary={"levels": {"diagnoses": "ccs"}, "minimum_patients": 1})
    )


# --- groups ----------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_wins(config):
    rules = "schema: fairsynth.groups/1\nrules:\n  - {match: WHITE, group: white}\n  - {match: '.', group: black}\n"
    read = read_groups(config(groups=rules) / "groups.yaml")
    assert [read.group_of(raw) for raw in ("white - Russian", "Black/White", "X", "")] == [
        "white",
        "white",
        "black",
        None,
    ]


def test_the_string_of_the_first_visit_that_has_one_decides(twenty, config, tmp_path):
    events = pl.read_parquet(twenty / "events" / "data" / "0.parquet").rows()
    late = Story(30, ethnicity="BLACK/AFRICAN").visit(1, day=0).visit(2, day=30)
    late.rows = [row for row in late.rows if not (row[2].startswith("ETHNICITY") and row[4] == 3001)]
    late.rows.append((30, None, "ETHNICITY//ASIAN", None, None, None))  # outside any visit: not asked
    root = write_events(tmp_path / "other", [*events, *late.rows])
    prepare(root, config=config(), plan=study_plan())
    patients = pl.read_parquet(root / "visits" / "patients.parquet")
    assert patients.filter(subject_id=30)["raw"].to_list() == ["BLACK/AFRICAN"]


def test_strings_without_a_rule_are_counted_and_only_common_ones_are_shown(tmp_path, config):
    strings = ["WHITE"] * 3 + ["MARTIAN"] * 11 + ["RARE STRING"]
    stories = [Story(n, ethnicity=raw).visit(1, day=0, died=n % 2 == 0) for n, raw in enumerate(strings, start=1)]
    root = write_events(tmp_path / "site", [row for story in stories for row in story.rows])
    with pytest.raises(CohortError) as caught:
        prepare(root, config=config(), plan=study_plan())
    text = str(caught.value)
    assert "groups.yaml" in text
    assert "2 distinct" in text
    assert "MARTIAN" in text
    assert "RARE" not in text
    assert not (root / "visits").exists()


def test_a_patient_of_a_group_that_the_study_does_not_know_is_an_error(twenty, config):
    folder = config(
        groups="schema: fairsynth.groups/1\nrules:\n  - {match: WHITE, group: han}\n  - {match: '.', group: black}\n"
    )
    with pytest.raises(CohortError, match=r"unknown group.*groups\.yaml  han"):
        prepare(twenty, config=folder, plan=study_plan())


def test_a_rule_for_a_group_that_nobody_belongs_to_is_no_error(twenty, config):
    folder = config(groups=GROUPS + "  - {match: HAN, group: han}\n")
    assert prepare(twenty, config=folder, plan=study_plan()).members.sum() > 0


def test_a_rule_that_is_no_regular_expression_is_refused_with_its_line(twenty, config):
    with pytest.raises(ConfigError, match=r"groups.yaml:6"):
        prepare(twenty, config=config(groups=GROUPS + "  - {match: '(', group: black}\n"), plan=study_plan())


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_cohort_that_its_filters_empty_is_refused_with_its_flow(twenty, config):
    with pytest.raises(CohortError, match=r"empty cohort(?s:.*)visits in events 40 -> .*visits in age range 0"):
        prepare(twenty, config=config("{maximum_age_years: 18}"), plan=study_plan())
    assert not (twenty / "visits").exists()


def test_a_task_without_an_example_is_refused(tmp_path, config):
    root = write_events(tmp_path / "site", [row for n in range(1, 15) for row in Story(n).visit(1, day=0).rows])
    with pytest.raises(CohortError, match="patients with an example 0"):
        prepare(root, config=config(), plan=study_plan(task={"name": "mortality_next_visit"}))


@pytest.mark.parametrize(("died", "missing"), [(False, "positives"), (True, "negatives")])
def test_a_task_in_which_all_have_one_outcome_is_refused(tmp_path, config, died, missing):
    rows = [row for n in range(1, 15) for row in Story(n).visit(1, day=0, died=died).rows]
    with pytest.raises(CohortError, match=f"task without {missing}"):
        prepare(write_events(tmp_path / "site", rows), config=config(), plan=study_plan())


def test_too_few_patients_for_three_splits_are_refused(tmp_path, config):
    rows = [row for n in range(1, 4) for row in Story(n).visit(1, day=0, died=n == 1).rows]
    with pytest.raises(CohortError, match=r"too few patients(?s:.*)patients held out 0"):
        prepare(write_events(tmp_path / "site", rows), config=config(), plan=study_plan())


def test_an_unknown_task_is_refused(twenty, config):
    with pytest.raises(ConfigError, match="unknown task"):
        prepare(twenty, config=config(), plan=study_plan(task={"name": "lottery"}))


def test_a_site_without_events_is_told_to_extract_first(tmp_path, config):
    with pytest.raises(ArtefactError, match="no events artefact"):
        prepare(tmp_path / "nowhere", config=config(), plan=study_plan())


def test_visits_prepared_for_another_study_are_not_encoded(twenty, config):
    prepare(twenty, config=config(), plan=study_plan())
    other = study_plan(seed=6)
    assert plan_sha256(other) != plan_sha256(study_plan())
    with pytest.raises(ArtefactError, match="another study"):
        encode(twenty, vocabulary=shared_vocabulary([], plan=other), plan=other)


def test_no_error_shows_a_patient_number(tmp_path, config):
    rows = [row for n in (987654321, 987654322, 987654323) for row in Story(n).visit(1, day=0, died=n % 2 == 0).rows]
    with pytest.raises(CohortError) as caught:
        prepare(write_events(tmp_path / "site", rows), config=config(), plan=study_plan())
    assert "98765432" not in str(caught.value)


# --- loading ---------------------------------------------------------------------------------------------------------


def tamper_vocabulary(folder):
    stored = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    stored["codes"] = stored["codes"][::-1]
    artefacts.write_json(folder / "vocabulary.json", stored)


def tamper_records(folder):
    records = Records.load(folder / "train.safetensors")
    records.codes[0] = 10_000
    records.save(folder / "train.safetensors")


@pytest.mark.parametrize("tamper", [tamper_vocabulary, tamper_records])
@pytest.mark.parametrize("resealed", [False, True])
def test_an_altered_cohort_is_not_loaded(twenty, config, tamper, resealed):
    build(twenty, config(), study_plan())
    folder = twenty / "cohort"
    tamper(folder)
    if resealed:  # even when the content hash was made to fit
        manifest = artefacts.read_manifest(folder, kind="cohort")
        artefacts.write_json(folder / "manifest.json", manifest | {"content": artefacts.sha256_folder(folder)})
    with pytest.raises(ArtefactError, match=r"hash|outside the vocabulary|altered"):
        load_cohort(twenty)


# --- the decoder -----------------------------------------------------------------------------------------------------


def test_the_decoder_names_source_codes_units_and_ranges(twenty, config):
    build(twenty, config(), study_plan())
    rows = pl.read_parquet(twenty / "cohort" / "decoder.parquet")
    assert dict(rows.schema) == DECODER_SCHEMA
    table = {(row["token"], row["source_code"]): row for row in rows.iter_rows(named=True)}
    assert table["DX//CCS//108", "DIAG//ICD9CM//4280"]["weight"] == 16
    assert table["RX//heparin", "DRUG//Heparin Sodium"]["low"] is None
    lab = table["LAB//2160-0//normal", "LAB//50912"]
    assert (lab["unit"], lab["low"], lab["high"]) == ("mg/dL", 0.5, 1.3)
    assert table["AGE//neonate", ""]["high"] == 28
    assert (table["GAP//7-29d", ""]["unit"], table["GAP//7-29d", ""]["low"]) == ("days", 7)
    assert ("SEX//female", "GENDER//F") in table
    assert ("LABEL", "DEATH//HOSPITAL") in table
    assert table["ADMISSION", "ADMISSION//EMERGENCY"]["weight"] == 32
    deaths = table["DISCHARGE//died", "DISCHARGE//DEAD/EXPIRED"]["weight"]
    assert table["DISCHARGE//alive", "DISCHARGE//HOME"]["weight"] + deaths == 32
    groups = rows.filter(pl.col("token").str.starts_with("GROUP//"))
    assert set(groups["source_code"]) == {"ETHNICITY//WHITE - RUSSIAN", "ETHNICITY//BLACK/HAITIAN"}
    assert groups["weight"].sum() == 16


def test_rare_source_codes_are_not_in_the_decoder_and_their_tokens_are_counted(tmp_path, config):
    """Thirty patients; each has heart failure, but under one of three codes, only one of which is common."""
    stories = [
        Story(n).visit(
            1, day=0, died=n % 3 == 0, codes=[f"DIAG//ICD9CM//{'4280' if n > 6 else '4281'}", f"PROC//ICD9PROC//40{n}"]
        )
        for n in range(1, 31)
    ]
    root = write_events(tmp_path / "site", [row for story in stories for row in story.rows])
    build(root, config(), study_plan(vocabulary={"minimum_patients": 11}))
    rows = pl.read_parquet(root / "cohort" / "decoder.parquet")
    assert rows.filter(token="DX//CCS//108")["source_code"].to_list() == ["DIAG//ICD9CM//4280"]
    assert rows.filter(token="PX//CLASS//blood_and_lymph").is_empty()
    manifest = artefacts.read_manifest(root / "cohort", kind="cohort")
    assert manifest["facts"]["undecodable_codes"] == 1


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_value_drawn_from_a_decoder_row_falls_back_into_its_bin(share):
    """For every test, bin and accepted unit."""
    from fairsynth.visits.labs import bin_index, conversions, converted

    cases = [
        (lab.loinc, bin_name, unit)
        for code, lab in labs_by_loinc().items()
        if code == lab.loinc
        for unit in lab.units
        for bin_name in lab.ranges()
    ]
    tokens = [f"LAB//{loinc}//{name}" for loinc, name, _ in cases]
    codes = [f"LAB//{index}" for index in range(len(cases))]
    units = [unit for *_, unit in cases]
    sources = pl.DataFrame({"token": tokens, "code": codes, "unit": units, "events": 1, "patients": 1})
    rows = decoder(sources, tokens=set(tokens), label=None, minimum_patients=1)
    pairs = pl.DataFrame({"code": codes, "unit": units, "loinc": [loinc for loinc, *_ in cases]})
    value = (pl.col("low") + share * (pl.col("high") - pl.col("low"))).cast(pl.Float32)
    back = (
        rows.rename({"source_code": "code"})
        .join(conversions(pairs), on=["code", "unit"])
        .with_columns(value.alias("numeric_value"))
        .with_columns(converted().alias("value"))
        .with_columns(bin_index().alias("bin"))
        .select("token", "loinc", bin=pl.col("bin").replace_strict(dict(enumerate(BINS)), return_dtype=pl.String))
        .with_columns(again=pl.format("LAB//{}//{}", "loinc", "bin"))
    )
    assert len(back) == len(cases) > 150
    assert back.filter(pl.col("token") != pl.col("again")).is_empty()
