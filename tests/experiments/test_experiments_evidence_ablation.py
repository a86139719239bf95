"""Each variant of the method adds its quotas and differs from the method in what it says, on two toy sites.

Positives carry the first two codes more often, whatever their group; group y is small, and site b smaller than a.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fairsynth.audit.evaluate import blind_scores
from fairsynth.audit.federated_logistic import federated_logistic
from fairsynth.audit.fitting import bag_of_tokens
from fairsynth.audit.predictors import LogisticRegression
from fairsynth.audit.teacher import Teacher
from fairsynth.augmentation.guided import Guidance, guided
from fairsynth.augmentation.plan import equal_cells, equal_rates, members_of
from fairsynth.config import (
    AuditConfig,
    GeneratorConfig,
    GroupsConfig,
    PrivacyConfig,
    SiteEntry,
    StudyConfig,
    TrainingConfig,
)
from fairsynth.experiments.evidence import steering, table2, training
from fairsynth.experiments.evidence.ablation import CUT, MANY, Ablation
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.cells import load_cell
from fairsynth.experiments.evidence.chosen import chooser
from fairsynth.experiments.evidence.counting import Sizes, fit
from fairsynth.experiments.evidence.drawing import Draw
from fairsynth.experiments.evidence.grid import MAIN, ROWS, Work
from fairsynth.experiments.evidence.prefixed import likely
from fairsynth.experiments.evidence.steering import PENALTY, ThroughPredictor, go_on, newton, validation_counts
from fairsynth.experiments.evidence.table2 import LAMBDAS, Table2
from fairsynth.experiments.evidence.training import ByObjective, steered
from fairsynth.experiments.evidence.trial import Trial
from fairsynth.fairness.coefficients import coefficients
from fairsynth.federation.aggregate import average
from fairsynth.generator.base_rates import at_home, to_share
from fairsynth.generator.downstream import Feedback
from fairsynth.generator.train import Moments, Study, Totals, train
from fairsynth.schemas import SiteId
from fairsynth.seeds import stream
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

WORDS = Vocabulary(codes=tuple(f"DX//{n}" for n in range(6)), groups=("x", "y"), ages=("old",), phenotypes=())
CELLS = {"a": [[60, 16], [18, 6]], "b": [[40, 10], [12, 4]]}
SYNTHETIC = 40
PREDICTOR = "logistic_regression"
METHOD = (
    "fairsynth",
    "fixed_cut",
    "same_cut",
    "site_cuts",
    "common_teacher",
    "own_teacher",
    "local_teacher",
    "not_at_home",
    "more_candidates",
)
STEERED = ("steered_lambda", "steered_zero", "gradient_frozen", "training_effect")
PREFIXED = ("prefix", "prefix_ranked", "newton_ranked")


def people(cells, *, seed: int) -> Records:
    """`cells[g][y]` patients, one or two visits each."""
    rng, layout = np.random.default_rng(seed), WORDS.layout
    group, label = (np.repeat(axis.ravel(), np.ravel(cells)) for axis in np.indices((2, 2)))
    visits = rng.integers(1, 3, size=len(group))
    chance = np.where((np.arange(6) < 2) & (np.repeat(label, visits)[:, None] == 1), 0.7, 0.25)
    has = rng.random(chance.shape) < chance
    sex = rng.integers(0, 2, size=len(group))
    context = [
        [layout.groups.start + g, *([layout.label] if y else []), layout.sexes.start + s, layout.ages.start]
        for g, y, s in zip(group, label, sex, strict=True)
    ]
    return Records(
        codes=np.nonzero(has)[1],
        visit_offsets=np.cumsum([0, *has.sum(axis=1)]),
        patient_offsets=np.cumsum([0, *visits]),
        context=np.concatenate(context),
        context_offsets=np.cumsum([0, *map(len, context)]),
        group=group,
        label=label,
    )


def toy(*, cells=CELLS) -> Bench:
    study = StudyConfig(
        schema="fairsynth.study/1",
        name="toy",
        seed=1,
        sites=tuple(SiteEntry(site=name, config="none", data="none") for name in CELLS),
        privacy=PrivacyConfig(agreement="toys"),
        groups=GroupsConfig(names=WORDS.groups, reference=("x",)),
        generator=GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=3),
        training=TrainingConfig(rounds=2, batch_size=16, learning_rate=0.01),
        audit=AuditConfig(predictors=(PREDICTOR,), minimum_positives=3),
    )
    cohorts = {
        SiteId(name): Cohort(
            vocabulary=WORDS,
            train=people(own, seed=place),
            validation=people([[40, 15], [20, 8]], seed=10 + place),
            held_out=people([[20, 8], [10, 5]], seed=20 + place),
        )
        for place, (name, own) in enumerate(cells.items())
    }
    fresh = {site: people([[20, 40], [20, 40]], seed=30 + place) for place, site in enumerate(cohorts)}
    return Bench(
        draw=Draw(vocabulary=WORDS, cohorts=cohorts, fresh=fresh),
        plan=study.plan(),
        seed=5,
    )


def ablation(bench: Bench) -> Ablation:
    return Ablation(bench=bench, setting="toy", sizes=Sizes(real=166, synthetic=SYNTHETIC), number=1)


@pytest.fixture(scope="module", autouse=True)
def two_rounds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steering, "ROUNDS", 2)
        patch.setattr(table2, "LAMBDAS", (0.0, 1.2))
        yield


@pytest.fixture(scope="module")
def bench() -> Bench:
    return toy()


@pytest.fixture(scope="module")
def ran(bench):
    found = ablation(bench)
    return found, found.run()


@pytest.fixture(scope="module")
def added(ran):
    """Whom each variant adds."""
    return {name: add() for name, add in ran[0].approaches(PREDICTOR).items()}


def cells_of(added) -> dict:
    return {site: members_of(one.group, one.label, groups=2) for site, one in added.items()}


def same(one: Records, other: Records) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("codes", "context", "label"))


def all_same(one, other) -> bool:
    return all(same(one[site], other[site]) for site in one)


# --- the cell


def test_the_cell_holds_every_variant_once_with_the_patients_that_it_added(ran, added, tmp_path):
    cell = ran[1]
    assert set(cell.axes.approaches) == {"real_only", "oracle", "equal_cells", "quota_feedback"} | {
        *METHOD,
        *STEERED,
        *PREFIXED,
    }
    for place, name in enumerate(cell.axes.approaches):
        assert np.array_equal(cell.added[place, 0], np.stack(list(cells_of(added[name]).values()))), name
    assert (cell.held_out.sum(axis=(2, 3, 4, 5)) == 2 * 43).all()
    assert (cell.validation.sum(axis=(2, 3, 4, 5)) == 2 * 83).all()
    cell.save(tmp_path)
    assert np.array_equal(load_cell(tmp_path).held_out, cell.held_out)


@pytest.mark.parametrize("name", ["oracle", *METHOD, *STEERED, *PREFIXED])
def test_a_variant_adds_exactly_the_quotas_of_the_equal_rates_plan(bench, added, name):
    for site, found in cells_of(added[name]).items():
        assert np.array_equal(found, equal_rates(bench.members(site), budget=bench.budgets(SYNTHETIC)[site]))
        assert found.sum() > 0


def test_real_only_adds_nobody(added):
    assert [len(one) for one in added["real_only"].values()] == [0, 0]


def test_a_predictor_without_a_linear_last_layer_is_not_asked_to_rank(bench):
    assert "newton_ranked" not in ablation(bench).approaches("gradient_boosting")
    assert "newton_ranked" in ablation(bench).approaches("transformer")


# --- one part of the loop less


def test_fairsynth_is_what_the_other_tables_call_so(bench, ran, added):
    trial = Trial(bench=bench, setting="toy", sizes=Sizes(real=166, synthetic=SYNTHETIC), number=1, wide=False).run()
    place, mine = trial.axes.approaches.index("fairsynth"), ran[1].axes.approaches.index("fairsynth")
    assert np.array_equal(trial.held_out[place], ran[1].held_out[mine])


def test_same_cut_is_the_loop_without_cuts_by_group(ran, added):
    loop = replace(ran[0].loop(PREDICTOR), cuts_by_group=False)
    assert all_same(added["same_cut"], loop.run().added)


def test_site_cuts_are_each_sites_own_from_the_common_operating_point(ran, added):
    loop = replace(ran[0].loop(PREDICTOR), cuts_by_group=False)
    point = loop.run().kept
    for site, records in added["site_cuts"].items():
        own = loop.cut_at(site, point)
        assert ran[0].facts[f"selected/site_cuts/{PREDICTOR}/{site}"] == own.round(4).tolist()
        by_hand = loop.choose_at(site, Guidance(selected=own))
        assert np.array_equal(records.codes, by_hand.codes)
        assert np.array_equal(records.label, by_hand.label)


def test_fixed_cut_is_the_guidance_alone_and_does_not_look_at_validation(bench, added):
    draw = bench.draw
    other = {site: replace(one, validation=people([[30, 2], [2, 30]], seed=77)) for site, one in draw.cohorts.items()}
    blind = replace(bench, draw=replace(draw, cohorts=other))  # candidates and teachers as they are
    loop = ablation(blind)
    assert all_same(added["fixed_cut"], loop.fixed_cut(PREDICTOR))
    for site, one in loop.loop(PREDICTOR).candidates.items():
        by_hand = guided(
            one.records,
            scores=one.scores,
            cells=loop.quotas[site],
            guidance=Guidance(selected=np.full(2, CUT)),
            vocabulary=WORDS,
            seed=stream(stream(bench.seed, "fairsynth", PREDICTOR), "guided", site),
        )
        assert same(by_hand, added["fixed_cut"][site])


@pytest.mark.parametrize(("variant", "part"), [("common_teacher", "common"), ("own_teacher", "own")])
def test_half_a_teacher_is_the_method_whose_teacher_has_one_model_only(bench, added, variant, part):
    alone = {site: Teacher(common=getattr(teacher, part)) for site, teacher in bench.teachers().items()}
    halved = replace(bench, _teachers={"federated": alone}, _candidates={})
    assert all_same(added[variant], ablation(halved).full(PREDICTOR).added)
    assert not all_same(added[variant], added["fairsynth"])


def test_local_teacher_of_one_site_does_not_depend_on_another_s_patients(bench, added):
    swapped = toy(cells={"a": CELLS["a"], "b": [[60, 16], [18, 6]]})
    local = replace(swapped, _generators=bench._generators, _weights=bench._weights)
    for site, as_before in (("a", True), ("b", False)):
        mine = bench.teachers("local")[SiteId(site)].scores(people([[9, 9], [9, 9]], seed=3))
        theirs = local.teachers("local")[SiteId(site)].scores(people([[9, 9], [9, 9]], seed=3))
        assert np.array_equal(mine, theirs) == as_before
    assert not all_same(added["local_teacher"], added["fairsynth"])


# --- other candidates, other quotas


def test_more_candidates_is_the_method_that_chooses_from_four_times_as_many(ran, added):
    few, many = ran[0].loop(PREDICTOR), ran[0].loop(PREDICTOR, each=MANY)
    for site, cells in ran[0].quotas.items():
        numbers = [len(loop.candidates[site].records) for loop in (few, many)]
        assert numbers == [8 * cells.sum(), 32 * cells.sum()]
    assert all_same(added["more_candidates"], many.run().added)
    assert not all_same(added["more_candidates"], added["fairsynth"])


def test_equal_cells_adds_the_quotas_of_its_own_plan(bench, added, ran):
    for site, found in cells_of(added["equal_cells"]).items():
        assert np.array_equal(found, equal_cells(bench.members(site), budget=bench.budgets(SYNTHETIC)[site]))
        assert not np.array_equal(found, ran[0].quotas[site])


# --- a generator that was trained on


def test_without_lambda_steering_is_training_on_without_a_term_and_asks_no_signal(bench):
    def never(weights, study, /):
        raise AssertionError

    found = go_on(replace(bench, home_rounds=0), weight=0.0, signal=never).bench
    start, cohorts = bench.generator(), bench.draw.cohorts
    shared, moments = start.shared, start.moments
    sizes = {site: len(one.train) for site, one in cohorts.items()}
    steps = sum(one.train.visits + len(one.train) for one in cohorts.values())
    totals = Totals(patients=sum(sizes.values()), positions=steps / sum(sizes.values()))
    for number, rate in enumerate(
        (0.01, 0.01 * bench.plan.training.final_learning_rate_share)
    ):  # both ends of a cosine
        study = Study(vocabulary=WORDS, plan=bench.plan, totals=totals, learning_rate=rate, moments=moments)
        trained = {
            site: train(
                at_home(shared, start.rates[site]),
                records=one.train,
                study=study,
                coefficients=None,
                epochs=1,
                seed=stream(stream(bench.seed, "steered"), "train", site, number),
            )
            for site, one in cohorts.items()
        }
        shared = average(
            {site: to_share(one.weights, start.rates[site]) for site, one in trained.items()}, patients=sizes
        )
        first, second = (
            average({site: getattr(one.moments, name) for site, one in trained.items()}, patients=sizes)
            for name in ("first", "second")
        )
        moments = Moments(first=first, second=second)
    for site in cohorts:
        by_hand = at_home(shared, start.rates[site])
        assert all(np.array_equal(array, by_hand[name]) for name, array in found.weights()[site].items())


def test_not_at_home_is_the_method_with_the_common_generator_as_it_is(bench, ran, added):
    common = replace(toy(), home_rounds=0)
    expected = chooser(common, predictor=PREDICTOR, quotas=ran[0].quotas).run().added
    assert all_same(added["not_at_home"], expected)
    assert not all_same(added["not_at_home"], added["fairsynth"])


def test_lambda_moves_the_generator_and_the_teacher_stays(bench, ran):
    with_term, without = (ran[0]._benches[name] for name in ("steered_lambda", "steered_zero"))
    site = bench.draw.sites[0]
    moved = [
        not np.array_equal(array, without.weights()[site][name]) for name, array in with_term.weights()[site].items()
    ]
    assert any(moved)
    assert with_term.teachers()[site] is bench.teachers()[site]


def test_the_four_generators_that_were_trained_on_differ_and_the_bench_s_own_is_untouched(bench, ran, added):
    site = bench.draw.sites[0]
    found = [ran[0]._benches[name].weights()[site] for name in STEERED] + [bench.weights()[site]]
    flat = [np.concatenate([array.ravel() for array in weights.values()]) for weights in found]
    assert all(not np.array_equal(flat[i], flat[j]) for i in range(5) for j in range(i))
    again = toy()
    fresh = np.concatenate([array.ravel() for array in again.weights()[site].values()])
    assert np.array_equal(fresh, flat[-1])
    assert all(len(ran[0].facts[f"nll/{name}"]) == 2 for name in STEERED)


def study_of(bench: Bench, *, weight: float = 1.2) -> Study:
    plan = bench.plan.model_copy(update={"objective": bench.plan.objective.model_copy(update={"weight": weight})})
    return Study(vocabulary=WORDS, plan=plan, totals=Totals(patients=166, positions=2.5))


def test_the_frozen_predictor_is_the_pooled_optimum_on_real_and_synthetic_patients(bench, ran):
    signal = ThroughPredictor(bench=bench, quotas=ran[0].quotas, way="scores")
    fed = signal(bench.weights(), study_of(bench))
    assert isinstance(fed, Feedback)
    everyone = Records.concatenate(
        [*(one.train for one in bench.draw.cohorts.values()), *(ran[0].prefix[site] for site in bench.draw.cohorts)]
    )
    pooled = LogisticRegression().fit(everyone, vocabulary=WORDS, settings=bench.settings, seed=1)
    np.testing.assert_allclose(fed.predictor.weights.numpy(), pooled.weights, atol=0.01)  # lbfgs stops early
    alone = LogisticRegression().fit(bench.draw.pooled().train, vocabulary=WORDS, settings=bench.settings, seed=1)
    assert np.abs(alone.weights - pooled.weights).max() > 0.05
    assert fed.patients == 2 * 83
    of_label = bench.plan.objective.model_copy(update={"target": "label"})
    counts = validation_counts(bench, dict.fromkeys(bench.draw.cohorts, pooled))
    slopes = coefficients(of_label, counts, reference=np.array([True, False])).values
    np.testing.assert_allclose(fed.coefficients, slopes, rtol=0.02, atol=1e-5)


def test_where_the_predictor_is_fair_the_generator_s_own_loss_steers(bench, ran, monkeypatch):
    real = steering.switch
    monkeypatch.setattr(steering, "switch", lambda *args, **options: real(*args, **options, tolerance=np.inf))
    signal = ThroughPredictor(bench=bench, quotas=ran[0].quotas, way="training")
    found = signal(bench.weights(), study_of(bench))
    expected = ByObjective(bench.draw.cohorts)(bench.weights(), study_of(bench))
    assert np.array_equal(found, expected)


def test_the_effect_of_training_is_weighted_by_the_quotas_of_all_sites(bench, ran):
    fed = ThroughPredictor(bench=bench, quotas=ran[0].quotas, way="training")(bench.weights(), study_of(bench))
    quotas = np.sum(list(ran[0].quotas.values()), axis=0)
    members = np.sum([bench.members(site) for site in bench.draw.sites], axis=0)
    np.testing.assert_allclose(fed.predictor.weights.numpy(), quotas * members.sum() / members)
    assert np.array_equal(fed.coefficients, [[1, 0], [1, 0]])


def test_the_newton_direction_foretells_what_one_more_patient_does_to_the_downstream_loss(bench):
    """Against training again with each of a few patients added, exactly."""
    train = bench.draw.pooled().train
    validation = bench.draw.pooled().validation
    objective = bench.plan.objective.model_copy(update={"target": "label", "name": "demographic_parity"})

    def loss(records):
        fitted = federated_logistic({SiteId("all"): records}, vocabulary=WORDS, inverse_strength=1 / PENALTY)
        scores = blind_scores(fitted, validation, vocabulary=WORDS)
        rates = [scores[validation.group == g].mean() for g in (0, 1)]
        return fitted, abs(rates[1] - rates[0])

    fitted, before = loss(train)
    scores = blind_scores(fitted, validation, vocabulary=WORDS)
    counts = np.zeros((2, 4))
    np.add.at(
        counts,
        validation.group,
        np.stack([np.ones(len(scores)), validation.label, scores, validation.label * scores], 1),
    )
    slopes = coefficients(objective, counts, reference=np.array([True, False])).values
    direction = newton(fitted, validation=validation, train=train, coefficients=slopes, vocabulary=WORDS)
    more = people([[3, 3], [3, 3]], seed=9)
    told = alignment_by_hand(fitted, more, direction)
    fell = [before - loss(Records.concatenate([train, more.take(np.array([i]))]))[1] for i in range(len(more))]
    assert np.corrcoef(told, fell)[0, 1] > 0.95


def alignment_by_hand(fitted, records, direction):
    """Written out: (score - y) times x along the direction."""
    inputs = bag_of_tokens(records, vocabulary=WORDS).toarray()
    residual = blind_scores(fitted, records, vocabulary=WORDS) - records.label
    return residual * (inputs @ direction[:-1] + direction[-1])


def test_a_steered_run_keeps_its_last_round_though_its_likelihood_were_the_worst(bench, monkeypatch):
    bench = replace(bench, home_rounds=0)
    as_it_is = go_on(bench, weight=1.2).bench
    worse = iter((1.0, 2.0))
    monkeypatch.setattr(training, "_validation", lambda *args, **options: next(worse))
    found = go_on(bench, weight=1.2)
    assert found.nll == (1.0, 2.0)
    for site in bench.draw.sites:
        weights = as_it_is.weights()[site]
        assert all(np.array_equal(array, weights[name]) for name, array in found.bench.weights()[site].items())


def test_a_steered_run_can_be_asked_for_the_objective_by_name(bench):
    plan = study_of(bench).plan.model_copy(update={"training": bench.plan.training.model_copy(update={"rounds": 1})})
    cohorts = bench.draw.cohorts
    default = steered(bench.generator(), cohorts, plan=plan, seed=1)
    named = steered(bench.generator(), cohorts, plan=plan, seed=1, signal=ByObjective(cohorts))
    assert all(np.array_equal(array, named.shared[name]) for name, array in default.shared.items())


# --- labels of the generator's own


def test_candidates_are_drawn_in_proportion_to_the_teacher_s_odds_of_their_label():
    """Of two candidates of a cell, the likelier is drawn first with chance odds / (odds + odds)."""
    two = people([[0, 2], [0, 0]], seed=1)
    scores = np.array([0.8, 0.4])  # odds 4 and 2/3
    quotas = np.array([[0, 1], [0, 0]])
    first = np.mean([likely(two, scores=scores, quotas=quotas, seed=seed)[0] == 0 for seed in range(2000)])
    assert first == pytest.approx(4 / (4 + 2 / 3), abs=0.03)
    negatives = people([[2, 0], [0, 0]], seed=1)
    quotas = np.array([[1, 0], [0, 0]])
    first = np.mean([likely(negatives, scores=scores, quotas=quotas, seed=seed)[0] == 0 for seed in range(2000)])
    assert first == pytest.approx((1 / 4) / (1 / 4 + 3 / 2), abs=0.03)


def test_prefix_ranked_is_likelier_to_the_teacher_than_its_candidates(bench, ran, added):
    for site, kept in added["prefix_ranked"].items():
        pool = ran[0].prefix_candidates[site]
        means = [
            blind_scores(bench.teachers()[site], one, vocabulary=WORDS)[one.label == 1].mean() for one in (kept, pool)
        ]
        assert means[0] > means[1]


def test_newton_ranked_keeps_other_candidates_than_chance_does_and_the_same_each_time(ran, added):
    again = ran[0].newton_ranked(PREDICTOR)
    assert all_same(added["newton_ranked"], again)
    assert not all_same(added["newton_ranked"], added["prefix_ranked"])
    assert not all_same(added["newton_ranked"], added["prefix"])


def test_newton_ranked_keeps_patients_of_the_better_half_of_each_cell(bench, ran, added):
    models = fit(bench, predictor=PREDICTOR, added=ran[0].prefix)
    of_label = bench.plan.objective.model_copy(update={"target": "label"})
    pooled = coefficients(of_label, validation_counts(bench, models), reference=np.array([True, False])).values
    for site, kept in added["newton_ranked"].items():
        one, candidates = bench.draw.cohorts[site], ran[0].prefix_candidates[site]
        mixed = Records.concatenate([one.train, ran[0].prefix[site]])
        direction = newton(models[site], validation=one.validation, train=mixed, coefficients=pooled, vocabulary=WORDS)
        mine, all_of_them = (alignment_by_hand(models[site], each, direction) for each in (kept, candidates))
        for g, y in np.argwhere(ran[0].quotas[site] > 0):
            own = all_of_them[(candidates.group == g) & (candidates.label == y)]
            assert mine[(kept.group == g) & (kept.label == y)].min() >= np.median(own) - 1e-12


def test_newton_ranked_fills_the_quotas_for_a_transformer_too(bench, ran):
    for site, found in cells_of(ran[0].newton_ranked("transformer")).items():
        assert np.array_equal(found, ran[0].quotas[site])


def test_quota_feedback_adds_what_its_plan_says_and_never_above_a_site_s_budget(bench, ran, added):
    tried = ran[0].facts[f"tried/quota_feedback/{PREDICTOR}"]
    assert tried[0]["move"] == "start"
    assert tried[0]["patients"] == sum(bench.budgets(SYNTHETIC).values())
    kept = [each["patients"] for each in tried if each["outcome"] == "accepted"]
    assert sum(map(len, added["quota_feedback"].values())) == (kept[-1] if kept else 0)
    for site, one in added["quota_feedback"].items():
        assert len(one) <= bench.budgets(SYNTHETIC)[site]


# --- Table 2 and the grid


def test_table_2_has_a_row_for_each_lambda_and_lambda_1_2_is_the_ablation_s_steered_one(bench, ran, added):
    table = Table2(bench=bench, setting="toy", sizes=Sizes(real=166, synthetic=SYNTHETIC), number=1)
    cell = table.run()
    assert cell.axes.approaches == ("real_only", "lambda=0", "lambda=1.2")
    mine = ran[1].axes.approaches
    for here, there in (("lambda=0", "steered_zero"), ("lambda=1.2", "steered_lambda"), ("real_only", "real_only")):
        place = cell.axes.approaches.index(here)
        assert np.array_equal(cell.held_out[place], ran[1].held_out[mine.index(there)])
    assert LAMBDAS == (0.0, 0.5, 1.0, 1.2, 1.5, 3.0)


def work(table: str, tmp_path) -> Work:
    folders = {"study": tmp_path, "pool": tmp_path, "out": tmp_path, "data": {}}
    return Work(setting="a", seed=2, real=2500, synthetic=(2500,), table=table, **folders)


def test_the_tables_of_other_approaches_have_folders_of_their_own(tmp_path):
    shared = tmp_path / "cells" / "a" / "r2500-s2500" / "seed-2"
    assert work("table1", tmp_path).folder(2500) == work("ceiling", tmp_path).folder(2500) == shared
    for table in ("ablation", "table2"):
        assert work(table, tmp_path).folder(2500) == tmp_path / "cells" / "a" / table / "r2500-s2500" / "seed-2"
        assert ROWS[table] == (MAIN,)


def test_each_table_tries_its_own_approaches(bench, tmp_path):
    kinds = {"table1": Trial, "ceiling": Trial, "ablation": Ablation, "table2": Table2}
    assert {name: type(work(name, tmp_path).trial(bench, MAIN)) for name in kinds} == kinds
