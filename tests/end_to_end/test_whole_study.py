"""The main job, small: raw tables of two simulated hospitals to a report, through the command line and real Flower.

With all that a study can ask for: a primed start, a teacher, rounds at home.
"""

import json
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from fairsynth.audit.site import kept_changes
from fairsynth.cli import main
from fairsynth.experiments.results import results
from fairsynth.experiments.study import Run
from fairsynth.federation.journal import read
from fairsynth.federation.plans import POOLED
from fairsynth.federation.terms import load_terms
from fairsynth.generator.checkpoint import load
from fairsynth.governance import ledger
from fairsynth.visits.cohort import load_cohort
from fairsynth.visits.records import Records

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.flower

STUDY = """schema: fairsynth.study/1
name: small
seed: 11
sites:
  - site: boston
    config: {configs}/mimic3
    simulate: {{source: mimic3, patients: 700, seed: 1, mix: study, detail: 0.03}}
  - site: zhejiang
    config: {configs}/pic
    simulate: {{source: pic, patients: 600, seed: 2, mix: study, detail: 0.03}}
groups:
  names: [white, black, hispanic, asian, other, han, yi, buyei, miao, tujia, hui]
  reference: [white, han]
privacy: {{agreement: simulated patients, minimum_contributing: 1, minimum_group: 1}}
split: {{train: 0.5, validation: 0.2, held_out: 0.3}}
generator: {{embedding: 32, layers: 1, heads: 2}}
training: {{rounds: 2, local_epochs: 1, primed: true}}
augmentation: {{synthetic_patients: 200, candidates: taught, home_rounds: 1}}
audit: {{seeds: 2, predictors: [logistic_regression], bootstrap_replicates: 200}}
"""


def command(capsys, *arguments: str) -> str:
    """What `fairsynth ARGUMENTS` prints; it must end well."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    printed = capsys.readouterr()
    assert stopped.value.code == 0, printed.err
    return printed.out


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    path = folder / "study.yaml"
    path.write_text(STUDY.format(configs=ROOT / "site_configs"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(study: Path) -> Path:
    folder = study.parent / "run"
    with pytest.raises(SystemExit) as stopped:
        main(["study", str(study), "--out", str(folder)])
    assert stopped.value.code == 0
    return folder


def test_a_study_ends_with_a_report_that_needs_no_network(run):
    class Links(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag, attrs):
            loads = {"src", "poster", "data"} | ({"href"} if tag in {"link", "use", "image"} else set())
            self.found += [
                value for name, value in attrs if name in loads and value and not value.startswith(("#", "data:"))
            ]

    parser = Links()
    parser.found = []
    text = (run / "report.html").read_text(encoding="utf-8")
    parser.feed(text)
    assert parser.found == []
    for word in ("boston", "zhejiang", "Real + FairSynth", "INSUFFICIENT", "The guide that was kept"):
        assert word in text


def test_no_artefact_of_a_site_is_in_the_servers_folder(run):
    names = {path.name for path in (run / "server").iterdir()}
    arms = {"generator-plain", "generator-fairsynth"}
    kept = {".server.lock", "run.json", "rounds", "activity.json", "server.log"}
    assert names == {"plan.json", "roster.json", "journal.jsonl", "enrolment.json", *arms, "terms", "audit", *kept}


def test_the_server_of_the_study_knows_sums_over_all_sites_alone(run):
    enrolment = json.loads((run / "server/enrolment.json").read_text(encoding="utf-8"))
    assert list(enrolment["sites"]) == [POOLED]
    assert [path.stem for path in (run / "server/audit").glob("*.safetensors")] == [POOLED]


def test_each_site_knows_by_itself_whether_to_augment(run):
    for site in ("boston", "zhejiang"):
        assert {change.predictor for change in kept_changes(Run(root=run).site(site))} == {"logistic_regression"}


def test_each_site_settled_the_generator_at_home_and_kept_its_candidates_there(run):
    for site in ("boston", "zhejiang"):
        folder = Run(root=run).site(site)
        generator = load(folder / "home", kind="home")
        assert generator.vocabulary == load_cohort(folder).vocabulary
        assert len(Records.load(folder / "candidates" / "records.safetensors")) == 8 * 200


def test_all_sites_together_chose_who_of_the_candidates_has_the_outcome(run):
    lines = read(run / "server/journal.jsonl")
    (planned,) = (line for line in lines if line["event"] == "planned")
    assert planned["sites"] == [POOLED]
    assert load_terms(run / "server", plan=Run(root=run).plan).guide.selected.tolist() == planned["selected"]
    assert not [line for line in lines if line["event"] == "refused"]


def test_each_sites_ledger_is_sound_and_says_what_left_and_that_the_operator_approved_it(run):
    for site in ("boston", "zhejiang"):
        folder = run / "sites" / site
        assert ledger.find_fault(folder) is None
        first, *others = ledger.read(folder)
        assert (first.event, first.officer) == ("approved", "local run")
        kinds = {line.kind for line in others}
        masked = {"enrolled", "agreed", "trained", "taught", "fed_back", "audited"}
        assert kinds == {"joined", *(f"sealed_{kind}" for kind in masked)}
        assert {line.masked for line in others if line.kind != "joined"} == {("masked",)}
        assert {line.study for line in others} == {first.study}


def test_every_approach_is_judged_on_the_same_real_held_out_patients(run):
    table = results(run)
    assert set(table["approach"]) == {"real_only", "plain_synthetic", "oversampled", "fairsynth"}
    held_out = {site: len(load_cohort(Run(root=run).site(site)).held_out) for site in ("boston", "zhejiang")}
    axes = json.loads((run / "server/audit/axes.json").read_text(encoding="utf-8"))
    from safetensors.numpy import load_file

    confusion = load_file(run / f"server/audit/{POOLED}.safetensors")["confusion"]
    assert (confusion.sum(axis=(-1, -2)) == sum(held_out.values())).all()
    assert confusion.shape[0] == len(axes["approaches"])


def test_synthetic_patients_can_be_generated_for_one_cell(run, tmp_path, capsys):
    out = tmp_path / "synthetic"
    options = ["--group", "black", "--label", "1", "--patients", "30", "--out", str(out)]
    said = json.loads(command(capsys, "generate", str(run), "--site", "boston", *options, "--json"))
    assert said == {"patients": 30, "events": str(out / "events"), "tables": str(out / "tables")}
    events = pl.read_parquet(out / "events/data/0.parquet")
    assert events["subject_id"].n_unique() == 30
    assert events.filter(pl.col("code") == "DEATH//HOSPITAL")["subject_id"].n_unique() == 30
    races = events.filter(pl.col("code").str.starts_with("ETHNICITY//"))["code"].unique()
    assert all("BLACK" in race for race in races)
    admissions = pl.read_csv(out / "tables/ADMISSIONS.csv", infer_schema=False)
    assert set(admissions["HOSPITAL_EXPIRE_FLAG"]) <= {"0", "1"}


def test_an_audit_can_be_repeated_and_gives_the_same_counts(run, capsys):
    again = json.loads(command(capsys, "audit", str(run), "--json"))
    frame = results(run)
    scope = again["scopes"][0]
    for one in scope["results"]:
        row = frame[
            (frame["scope"] == scope["scope"])
            & (frame["approach"] == one["approach"])
            & (frame["threshold"] == one["threshold"])
            & (frame["metric"] == "auroc")
        ]
        assert row["mean"].item() == pytest.approx(one["metrics"]["auroc"]["mean"])


def test_a_report_can_be_written_again(run, tmp_path, capsys):
    out = tmp_path / "again.html"
    command(capsys, "report", str(run), "--out", str(out))
    assert "Real + FairSynth" in out.read_text(encoding="utf-8")


def test_training_made_both_generators_better(run):
    lines = read(run / "server/journal.jsonl")
    for arm in ("plain", "fairsynth"):
        losses = [line["nll_validation"] for line in lines if line["event"] == "round" and line["arm"] == arm]
        assert losses[-1] < losses[0]
