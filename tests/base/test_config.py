"""Configuration files: what is right is read, what is wrong is told with file, line, key and mend."""

from pathlib import Path

import pytest

from fairsynth.config import SimulationConfig, SiteConfig, StudyConfig, checked, read_site, read_study, read_yaml
from fairsynth.errors import ConfigError

PRIVACY = "privacy:\n  agreement: toys\n"
STUDY = """schema: fairsynth.study/1
name: tiny
seed: 1
sites:
  - site: a
    config: sites/a
    data: tables/a
  - site: b
    config: sites/b
    simulate:
      source: pic
      patients: 50
groups:
  names: [x, y, z]
  reference: [x]
privacy:
  agreement: toys
"""


@pytest.fixture
def study(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_study_file_becomes_a_plan_that_holds_no_path(study):
    plan = read_study(study(STUDY)).plan()
    assert plan.roster == ("a", "b")
    assert plan.quorum == 2
    assert "tables/a" not in plan.model_dump_json()
    assert type(plan).model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def test_a_plan_that_does_not_say_sends_no_sums_for_a_primed_start_or_a_teacher(study):
    plan = read_study(study(STUDY)).plan()
    assert not plan.training.primed
    assert (plan.augmentation.candidates, plan.augmentation.home_rounds) == ("prefix", 0)


@pytest.mark.parametrize("name", ["demo", "mimic3demo_pic", "diabetes130"])
def test_the_studies_to_copy_from_begin_primed_and_have_a_teacher_and_rounds_at_home(name):
    plan = read_study(Path(__file__).resolve().parents[2] / "studies" / f"{name}.yaml").plan()
    assert plan.training.primed
    assert plan.augmentation.candidates == "taught"
    assert plan.augmentation.home_rounds > 0


def test_how_one_site_trains_alone_is_no_part_of_what_sites_agree_on(study):
    config = read_study(study(f"{STUDY}fit:\n  epochs: 7\n  device: cpu\n"))
    assert (config.fit.epochs, config.fit.device) == (7, "cpu")
    assert config.plan() == read_study(study(STUDY)).plan()


def test_a_study_names_the_sites_that_must_be_there(study):
    plan = read_study(study(f"{STUDY}quorum: 2\nrequired: [b, a]\n")).plan()
    assert (plan.quorum, plan.required) == (2, ("a", "b"))
    assert type(plan).model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def test_a_plan_that_requires_no_site_by_name_is_written_as_it_was_before_there_was_that_key(study):
    written = read_study(study(STUDY)).plan().model_dump(mode="json", by_alias=True)
    assert set(written) == {
        *("schema", "name", "seed", "roster", "quorum", "task", "split", "groups", "vocabulary", "objective"),
        *("generator", "training", "augmentation", "audit", "privacy"),
    }


@pytest.mark.parametrize(
    ("old", "new", "line", "hint"),
    [
        ("seed: 1", "seed: 1\nrequired: [c]", 0, "required site 'c' is not among the study's sites"),
        ("seed: 1", "seed: 1\nrequired: [a, a]", 0, "a site is named twice in `required`"),
        ("seed: 1", "seed: 1\nquorum: 1\nrequired: [a, b]", 0, "2 sites, more than the quorum of 1: raise `quorum`"),
        ("groups:\n", "fit: {epoch: 3}\ngroups:\n", 13, "did you mean 'epochs'?"),
        ("groups:\n", "fit: {precision: half}\ngroups:\n", 13, "'auto', 'float32' or 'bfloat16'"),
        ("seed: 1", "sede: 1", 3, "did you mean 'seed'?"),
        ("patients: 50", "patient: 50", 12, "did you mean 'patients'?"),
        ("patients: 50", "patients: -5", 12, "greater than 0"),
        ("source: pic", "source: mimic4", 11, "'mimic3' or 'pic'"),
        ("reference: [x]", "reference: [w]", 13, "reference group 'w' is not among `names`"),
        ("site: b", "site: a", 0, "a site is named twice"),
        ("schema: fairsynth.study/1", "schema: fairsynth.site/1", 1, "fairsynth.study/1"),
    ],
)
def test_a_wrong_value_is_told_with_its_line_and_its_mend(study, old, new, line, hint):
    path = study(STUDY.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_study(path)
    message = str(caught.value)
    assert f"{path}:{line}" in message if line else str(path) in message
    assert hint in message


def test_every_problem_of_a_file_is_told_in_one_pass(study):
    with pytest.raises(ConfigError) as caught:
        read_study(study(STUDY.replace("seed: 1", "sede: 1").replace("patients: 50", "patients: 0")))
    assert len(caught.value.problems) == 3  # unknown key, missing key, bad value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", r"duplicate key: .*study\.yaml:4  b\.c"),
        ("? [a, b]\n: 1\n", r"key is not a word: .*study\.yaml:1"),
        ("a: 2020-13-45\n", "not valid YAML"),
        ("a: !!python/object:os.system {}\n", "not valid YAML"),
        ("a: &x 1\nb: *x\n", "YAML alias"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "not a mapping"),
        ("a: " + "1" * 70_000, "file too large"),
    ],
)
def test_yaml_that_could_mislead_is_refused(study, text, what):
    with pytest.raises(ConfigError, match=what):
        read_yaml(study(text), StudyConfig)


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_study(path)


def test_a_missing_site_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"missing file.*site\.yaml"):
        read_site(tmp_path)


def test_the_splits_must_add_up(study):
    text = STUDY + "split: {train: 0.5, validation: 0.1, held_out: 0.1}\n"
    with pytest.raises(ConfigError, match="must be 1"):
        read_study(study(text))


def test_a_site_file_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("schema: fairsynth.study/1\nsource: pic\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"site\.yaml:1"):
        read_yaml(path, SiteConfig)


def test_options_of_the_command_line_are_checked_alike():
    with pytest.raises(ConfigError, match="options"):
        checked(SimulationConfig, {"source": "pic", "detail": 2.0}, where="options")


@pytest.mark.parametrize(
    ("privacy", "profile"),
    [
        ("", "noise"),
        ("privacy:\n  epsilon: 2\n", "noise"),
        ("privacy:\n  agreement: a document\n", "exact"),
        ("privacy:\n  profile: exact\n  agreement: a document\n", "exact"),
        ("privacy:\n  profile: plain\n  agreement: a document\n", "plain"),
    ],
)
def test_two_sites_that_name_no_agreement_get_noise(study, privacy, profile):
    config = read_study(study(STUDY.replace(PRIVACY, privacy)))
    assert config.plan().privacy.profile == profile


def test_three_sites_get_exact_sums(study):
    more = STUDY.replace(PRIVACY, "").replace("groups:", "  - site: c\n    config: c\n    data: c\ngroups:", 1)
    assert read_study(study(more)).plan().privacy.profile == "exact"


@pytest.mark.parametrize(
    ("new", "named"),
    [
        ("training:\n  primed: true", "training.primed"),
        ("augmentation:\n  candidates: taught", "taught"),
        ("augmentation:\n  home_rounds: 2", "home_rounds"),
    ],
)
def test_a_plan_with_noise_asks_for_nothing_that_noise_does_not_bound(study, new, named):
    with pytest.raises(ConfigError, match="nothing bounds what one patient changes") as caught:
        read_study(study(STUDY.replace(PRIVACY, f"{new}\n")))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["epsilon: 0", "epsilon: -1", "delta: 0", "delta: 0.1", "noise: {batch_share: 0.9}", "noise: {clip: 0}"]
)
def test_a_privacy_budget_that_is_none_is_refused(study, wrong):
    with pytest.raises(ConfigError):
        read_study(study(STUDY.replace(PRIVACY, f"privacy:\n  {wrong}\n")))


def test_what_trains_on_one_machine_has_no_noise(study):
    config = read_study(study(STUDY.replace(PRIVACY, "")))
    assert config.plan().privacy.noised
    assert not config.plan_here().privacy.noised
    alone = config.plan_here().model_copy(update={"roster": ("a",), "quorum": 1})
    assert type(alone).model_validate_json(alone.model_dump_json(by_alias=True)) == alone
    exact = read_study(study(STUDY))
    assert exact.plan_here() == exact.plan()
