import math
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy import optimize, stats

from fairsynth.errors import ArtefactError, ConfigError, PolicyRefusal
from fairsynth.governance.budget import NAME, Budget, DpSgd, Gaussian, Limit, epsilon_of
from fairsynth.governance.chained import Chained
from fairsynth.governance.drawn import Drawn

PLAN = "a" * 64
DELTA = 1e-5
KILLED = Path(__file__).with_name("governance_killed.py")


@pytest.fixture
def budget(tmp_path):
    return Budget.begin(tmp_path, limit=Limit(epsilon=3.0, delta=DELTA))


def exact_gaussian_epsilon(ratio, *, delta):
    """Balle and Wang 2018, theorem 8."""

    def excess(epsilon):
        half = 1 / (2 * ratio)
        first = stats.norm.cdf(half - epsilon * ratio)
        return first - math.exp(epsilon) * stats.norm.cdf(-half - epsilon * ratio) - delta

    return optimize.brentq(excess, 1e-6, 200)


@pytest.mark.parametrize("ratio", [0.7, 2.0, 10.0])
@pytest.mark.parametrize("times", [1, 20])
def test_epsilon_of_noise_on_counts_is_the_exact_one(ratio, times):
    found = epsilon_of([Gaussian(ratio=ratio)] * times, delta=DELTA)
    assert found.tight == pytest.approx(exact_gaussian_epsilon(ratio / math.sqrt(times), delta=DELTA), rel=0.01)
    assert found.tight <= found.renyi


@pytest.mark.parametrize(("releases", "sigma", "expected"), [(1, 2, 3.3), (50, 5, 11.0), (200, 20, 4.9)])
def test_repeated_releases_cost_what_the_specification_tells(releases, sigma, expected):
    found = epsilon_of([Gaussian(ratio=sigma / math.sqrt(2))] * releases, delta=1e-6)
    assert found.tight == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    "run", [DpSgd(steps=2000, rate=0.0256, noise_multiplier=1.0), DpSgd(steps=300, rate=0.05, noise_multiplier=2.0)]
)
def test_epsilon_of_training_is_that_of_opacus_within_a_tenth(run):
    prv, rdp = PRVAccountant(), RDPAccountant()
    for accountant in (prv, rdp):
        accountant.history = [(run.noise_multiplier, run.rate, run.steps)]
    found = epsilon_of([run], delta=DELTA)
    assert found.tight == pytest.approx(prv.get_epsilon(DELTA), rel=0.05)
    assert found.tight == pytest.approx(rdp.get_epsilon(DELTA), rel=0.1)
    assert found.renyi == pytest.approx(rdp.get_epsilon(DELTA), rel=0.05)


def test_nothing_spent_is_zero(budget):
    assert budget.epsilon().tight == 0


def test_releases_of_all_kinds_and_plans_add_up(budget):
    budget.spend("counts", Gaussian(ratio=5.0), plan_sha256=PLAN)
    spent = budget.spend("train", DpSgd(steps=50, rate=0.05, noise_multiplier=2.0), plan_sha256="b" * 64)
    alone = epsilon_of([Gaussian(ratio=5.0)], delta=DELTA).tight
    assert spent.charged
    assert alone < spent.epsilon.tight == budget.epsilon().tight


def test_a_release_is_charged_once_however_often_it_is_asked_for(budget):
    first = budget.spend("counts", Gaussian(ratio=5.0), plan_sha256=PLAN)
    again = budget.spend("counts", Gaussian(ratio=5.0), plan_sha256=PLAN)
    assert (first.charged, again.charged) == (True, False)
    assert first.epsilon == again.epsilon
    assert len(budget.entries()) == 1


def test_a_label_charged_for_one_mechanism_does_not_buy_another(budget):
    budget.spend("counts", Gaussian(ratio=5.0), plan_sha256=PLAN)
    with pytest.raises(PolicyRefusal, match="FS-400 the release was charged for another mechanism"):
        budget.spend("counts", Gaussian(ratio=1.0), plan_sha256=PLAN)
    assert len(budget.entries()) == 1


def test_the_same_label_of_another_plan_is_another_release(budget):
    budget.spend("counts", Gaussian(ratio=5.0), plan_sha256=PLAN)
    assert budget.spend("counts", Gaussian(ratio=5.0), plan_sha256="b" * 64).charged


def test_a_release_past_the_budget_is_refused_and_not_charged(budget):
    refused = 0
    for number in range(8):
        before = budget.epsilon().tight
        try:
            budget.spend(f"round {number}", Gaussian(ratio=2.5), plan_sha256=PLAN)
        except PolicyRefusal as error:
            refused += 1
            assert error.code == "FS-400"
            assert {"more noise" in problem.do for problem in error.problems} == {True}
            assert budget.epsilon().tight == before
        assert budget.epsilon().tight <= 3.0
    assert 0 < refused < 8
    assert not budget.spend("round 0", Gaussian(ratio=2.5), plan_sha256=PLAN).charged  # what was charged stays open


def test_an_epsilon_that_no_accountant_gives_is_refused(budget):
    with pytest.raises(PolicyRefusal):
        budget.spend("no noise", Gaussian(ratio=1e-4), plan_sha256=PLAN)
    assert budget.entries() == []


@pytest.mark.parametrize(
    "mechanism",
    [
        Gaussian(ratio=0.0),
        Gaussian(ratio=math.inf),
        Gaussian(ratio=math.nan),
        DpSgd(steps=0, rate=0.1, noise_multiplier=1.0),
        DpSgd(steps=1, rate=1.1, noise_multiplier=1.0),
        DpSgd(steps=1, rate=0.1, noise_multiplier=0.0),
    ],
)
def test_what_is_no_mechanism_is_refused(budget, mechanism):
    with pytest.raises(ConfigError, match="not a mechanism"):
        budget.spend("x", mechanism, plan_sha256=PLAN)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-5), (math.inf, 1e-5), (1, 0), (1, 1), (math.nan, 1e-5)])
def test_what_is_no_limit_is_refused(epsilon, delta):
    with pytest.raises(ConfigError, match="not a privacy budget"):
        Limit(epsilon=epsilon, delta=delta)


def test_without_its_ledger_a_site_releases_nothing(tmp_path, budget):
    (tmp_path / NAME).unlink()
    with pytest.raises(ArtefactError, match="fairsynth restore"):
        budget.spend("counts", Gaussian(ratio=5.0), plan_sha256=PLAN)


def test_a_ledger_is_not_begun_anew(tmp_path, budget):
    budget.spend("counts", Gaussian(ratio=5.0), plan_sha256=PLAN)
    with pytest.raises(ArtefactError, match="exists already"):
        Budget.begin(tmp_path, limit=budget.limit)
    assert budget.epsilon().tight > 0


def test_a_torn_last_line_forgets_nothing_that_was_released(tmp_path, budget):
    budget.spend("one", Gaussian(ratio=5.0), plan_sha256=PLAN)
    one = (tmp_path / NAME).read_bytes()
    budget.spend("two", Gaussian(ratio=5.0), plan_sha256=PLAN)
    both = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(both[: len(one) + 40])
    assert [entry["label"] for entry in budget.entries()] == ["one"]
    assert budget.spend("two", Gaussian(ratio=5.0), plan_sha256=PLAN).charged
    assert [entry["label"] for entry in budget.entries()] == ["one", "two"]


def test_two_that_spend_at_once_are_both_charged_within_the_limit(budget):
    outcomes = []

    def spend(name):
        try:
            outcomes.append(budget.spend(name, Gaussian(ratio=1.6), plan_sha256=PLAN).charged)
        except PolicyRefusal:
            outcomes.append(False)

    workers = [threading.Thread(target=spend, args=(f"release {number}",)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(outcomes) == len(budget.entries()) == 1  # a second of them would be epsilon 4


@pytest.mark.parametrize("death", ["after the charge", "after the draw"])
def test_a_site_killed_before_it_released_is_charged_once_and_draws_once(tmp_path, death):
    budget = Budget.begin(tmp_path, limit=Limit(epsilon=1.0, delta=DELTA))
    Drawn.begin(tmp_path)
    killed = subprocess.run([sys.executable, str(KILLED), str(tmp_path), death], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "released").exists()
    spent = budget.epsilon()
    assert spent.tight > 0
    drawn = (tmp_path / "drawn.jsonl").read_bytes()
    subprocess.run([sys.executable, str(KILLED), str(tmp_path), "never"], check=True)
    (kept,) = Chained(tmp_path / "drawn.jsonl").read()
    assert (tmp_path / "released").read_text() == " ".join(map(str, kept["values"]))
    assert budget.epsilon() == spent
    assert len(budget.entries()) == 1
    assert (death == "after the draw") == bool(drawn)
    assert (tmp_path / "drawn.jsonl").read_bytes().startswith(drawn)
