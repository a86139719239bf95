import itertools

import numpy as np
import pytest
import torch
from generator_naive import naive_head, naive_logits, naive_tensor
from generator_toys import (
    SMALL,
    SMALL_VOCABULARY,
    TINY,
    TINY_VOCABULARY,
    hospital,
    ints,
    records_of,
    rough_weights,
    study_of,
)
from scipy import stats

from fairsynth.config import GeneratorConfig
from fairsynth.errors import CohortError, ConfigError
from fairsynth.generator import triangular
from fairsynth.generator.label_visit import first_to_fire, one_of
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.sample import Conditions, draw, sample, stream_patients
from fairsynth.generator.train import train
from fairsynth.generator.visit import draw_visit
from fairsynth.seeds import stream
from fairsynth.visits.records import Records

LAYOUT = TINY_VOCABULARY.layout
FIELDS = ("codes", "visit_offsets", "patient_offsets", "context", "context_offsets", "group", "label")
DRAWS = 20_000


@pytest.fixture(scope="module")
def tiny():
    """A trained tiny model, whose tokens depend on each other."""
    records = hospital(300, seed=1, words=TINY_VOCABULARY, shares=(0.6, 0.4), maximum_visits=2)
    study = study_of(records, words=TINY_VOCABULARY, generator=TINY, learning_rate=1e-2, batch_size=32)
    start = rough_weights(words=TINY_VOCABULARY, config=TINY, seed=2)
    return train(start, records=records, study=study, coefficients=None, epochs=4, seed=3).weights


@pytest.fixture(scope="module")
def small():
    records = hospital(300, seed=1)
    study = study_of(records, learning_rate=5e-3, batch_size=32)
    start = rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=1, noise=0.3)
    return train(start, records=records, study=study, coefficients=None, epochs=4, seed=3).weights


def new(weights, number, *, words=TINY_VOCABULARY, config=TINY, seed=11, group=-1, label=-1, **options):
    conditions = Conditions(group=np.full(number, group), label=np.full(number, label))
    return sample(weights, vocabulary=words, config=config, conditions=conditions, seed=seed, **options)


# --- the model's distribution over records, by enumeration ---------------------------------------------------------


def all_patients():
    """Every record that the tiny vocabulary allows, with at most two visits, as `records_of` reads it."""
    visits = [list(codes) for size in range(4) for codes in itertools.combinations(range(3), size)]
    stays = [[visit] for visit in visits] + [list(pair) for pair in itertools.product(visits, visits)]
    contexts = itertools.product(range(2), range(2), range(2), range(2), ([], [0]))
    return [(*context, stay) for context in contexts for stay in stays]


def key(group, label, sex, age, phenotypes, visits):
    return group, label, sex, age, tuple(phenotypes), tuple(map(tuple, visits))


def keys_of(records):
    """The same keys for sampled records."""
    for i in range(len(records)):
        context = records.context[records.context_offsets[i] : records.context_offsets[i + 1]]
        visits = [
            records.codes[records.visit_offsets[v] : records.visit_offsets[v + 1]].tolist()
            for v in range(records.patient_offsets[i], records.patient_offsets[i + 1])
        ]
        sexes, ages = (
            [token - block.start for token in context if block.start <= token < block.stop]
            for block in (LAYOUT.sexes, LAYOUT.ages)
        )
        phenotypes = [token - LAYOUT.phenotypes.start for token in context if token >= LAYOUT.phenotypes.start]
        yield key(records.group[i], records.label[i], *sexes, *ages, phenotypes, visits)


def enumerated(weights):
    """Probability of every record, in order: products of Bernoullis, one-of blocks conditioned on firing."""
    patients = all_patients()
    rows = naive_tensor(records_of(patients, words=TINY_VOCABULARY), TINY_VOCABULARY, length=4)
    p = 1 / (1 + np.exp(-naive_logits(weights, rows, config=TINY)))
    on = np.where(rows[:, 1:] == 1, p, 1 - p)
    blocks = {0: LAYOUT.groups, 2: LAYOUT.sexes, 3: LAYOUT.ages}  # place in the key -> tokens, two each
    off = {  # chances of both tokens while the block is off, as a record that chose the second sees them
        (place, patient[:place]): p[i, 0, block]
        for i, patient in enumerate(patients)
        for place, block in blocks.items()
        if patient[place] == 1
    }
    chance = {}
    for i, patient in enumerate(patients):
        value = on[i, 0, LAYOUT.label] * np.prod(on[i, 0, LAYOUT.phenotypes])
        for place in blocks:
            first, second = off[place, patient[:place]]
            fires = first if patient[place] == 0 else (1 - first) * second
            value *= fires / (1 - (1 - first) * (1 - second))
        for t in range(len(patient[-1])):
            value *= np.prod(on[i, 1 + t, LAYOUT.codes])
            value *= on[i, 1 + t, LAYOUT.end] if t == 0 else 1  # the second visit is always the last
        chance[key(*patient)] = value
    return chance


def chi_square_p(counts, chance, *, number):
    """Cells and p-value of `counts` of `number` draws under `chance`; cells that expect under 8 draws are pooled."""
    names = sorted(chance, key=chance.get)
    expected = np.array([chance[name] for name in names]) * number
    seen = np.array([counts.get(name, 0) for name in names])
    pool = min(int(np.searchsorted(expected, 8)), len(names) - 1) + 1
    expected = np.concatenate([[expected[:pool].sum()], expected[pool:]])
    seen = np.concatenate([[seen[:pool].sum()], seen[pool:]])
    return len(seen), stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue


def tally(names):
    counts = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.fixture(scope="module")
def chance(tiny):
    return enumerated(tiny)


@pytest.fixture(scope="module")
def free_counts(tiny):
    return tally(keys_of(new(tiny, DRAWS)))


def test_the_enumerated_chances_sum_to_one(chance):
    assert sum(chance.values()) == pytest.approx(1, abs=1e-9)


def test_free_samples_follow_the_models_probabilities(chance, free_counts):
    assert free_counts.keys() <= chance.keys()
    cells, p_value = chi_square_p(free_counts, chance, number=DRAWS)
    assert cells > 100
    assert p_value > 0.01


def test_the_chi_square_would_see_a_small_error(chance, free_counts):
    wrong = {name: value * (1.25 if 0 in name[-1][0] else 1.0) for name, value in chance.items()}
    total = sum(wrong.values())
    assert chi_square_p(free_counts, {name: value / total for name, value in wrong.items()}, number=DRAWS)[1] < 1e-3


@pytest.mark.parametrize(
    "given",
    [
        {"group": 1, "label": 1},
        {"label": 1},
        {"age": 0},
        {"sex": 1, "age": 1},
        {"phenotypes": 1},
        {"group": 0, "phenotypes": 0},
        {"group": 1, "label": 0, "sex": 0, "age": 1, "phenotypes": 1},
    ],
    ids=lambda given: "-".join(f"{name}{value}" for name, value in given.items()),
)
def test_conditioned_samples_follow_the_conditional_probabilities(tiny, chance, given):
    """Whatever part of the label visit is given: the rest follows the model's distribution given it."""
    places = {"group": 0, "label": 1, "sex": 2, "age": 3}

    def fits(name):
        return all(
            (len(name[4]) if what == "phenotypes" else name[places[what]]) == value for what, value in given.items()
        )

    number = DRAWS // 2
    arrays = {"group": np.full(number, -1), "label": np.full(number, -1)}
    arrays |= {what: np.full((number, 1) if what == "phenotypes" else number, value) for what, value in given.items()}
    records = sample(tiny, vocabulary=TINY_VOCABULARY, config=TINY, conditions=Conditions(**arrays), seed=5)
    total = sum(value for name, value in chance.items() if fits(name))
    conditional = {name: value / total for name, value in chance.items() if fits(name)}
    counts = tally(keys_of(records))
    assert counts.keys() <= conditional.keys()
    assert chi_square_p(counts, conditional, number=number)[1] > 0.01


def test_a_condition_that_the_model_hardly_knows_is_refused_and_given_whole_it_is_imposed(tiny):
    model = build(tiny, vocabulary=TINY_VOCABULARY, config=TINY)
    with torch.no_grad():
        model.head.output_bias[LAYOUT.phenotypes] = -40
    asked = {"group": ints([0, 1]), "label": ints([1, 0]), "phenotypes": np.ones((2, 1), dtype=np.int64)}
    with pytest.raises(ConfigError, match="phenotypes too rare"):
        draw(model, conditions=Conditions(**asked), seed=1)
    whole = Conditions(**asked, sex=ints([0, 1]), age=ints([1, 0]))
    assert [name[4] for name in keys_of(draw(model, conditions=whole, seed=1).records)] == [(0,), (0,)]


@pytest.mark.parametrize(
    ("field", "array"), [("group", ints([5])), ("sex", ints([0, 0])), ("phenotypes", np.zeros((1, 3), dtype=np.int64))]
)
def test_conditions_that_do_not_fit_are_named(tiny, field, array):
    arrays = {"group": ints([0]), "label": ints([-1]), field: array}
    with pytest.raises(ConfigError, match=field):
        sample(tiny, vocabulary=TINY_VOCABULARY, config=TINY, conditions=Conditions(**arrays), seed=1)


# --- given histories -----------------------------------------------------------------------------------------------


def test_continued_patients_follow_the_models_probabilities_given_their_history(tiny, chance):
    history = records_of([(1, 0, 1, 0, [0], [[0, 2]])] * DRAWS, words=TINY_VOCABULARY)
    model = build(tiny, vocabulary=TINY_VOCABULARY, config=TINY)
    parts = [part.records for part in stream_patients(model, conditions=history, seed=4)]
    counts = tally(key for part in parts for key in keys_of(part))
    known = next(keys_of(history))
    longer = {name: value for name, value in chance.items() if name[:5] == known[:5] and len(name[5]) == 2}
    longer = {name: value for name, value in longer.items() if name[5][0] == known[5][0]}
    total = sum(longer.values())
    assert counts.keys() <= longer.keys()
    assert chi_square_p(counts, {name: value / total for name, value in longer.items()}, number=DRAWS)[1] > 0.01


def test_histories_of_any_length_stay_as_they_are_and_grow_whatever_the_batch(small):
    model = build(small, vocabulary=SMALL_VOCABULARY, config=SMALL)
    history = hospital(60, seed=9, maximum_visits=SMALL.maximum_visits - 1)
    together, apart = (
        Records.concatenate(
            [part.records for part in stream_patients(model, conditions=history, seed=6, batch_size=size)]
        )
        for size in (256, 7)
    )
    assert equal(together, apart)
    np.testing.assert_array_equal(together.context, history.context)
    assert (together.visit_counts > history.visit_counts).all()
    for i in range(len(history)):
        before, after = history.take(ints([i])), together.take(ints([i]))
        np.testing.assert_array_equal(after.visit_offsets[: len(before.visit_offsets)], before.visit_offsets)
        np.testing.assert_array_equal(after.codes[: len(before.codes)], before.codes)


def test_a_history_without_room_for_a_visit_is_refused_with_a_count(small):
    model = build(small, vocabulary=SMALL_VOCABULARY, config=SMALL)
    full = records_of([(0, 0, 0, 0, [], [[1]] * SMALL.maximum_visits), (0, 0, 0, 0, [], [[1]])], words=SMALL_VOCABULARY)
    with pytest.raises(CohortError, match="1 of 2 patients"):
        next(stream_patients(model, conditions=full, seed=1))


# --- the fixed point -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [3, 8, 128])
def test_a_visit_is_the_sequential_sample_bit_for_bit(small, block, monkeypatch):
    """Same uniforms, another program: the two dense layers in float64, one token at a time."""
    monkeypatch.setattr(triangular.edges, "__kwdefaults__", {"block": block})
    model = build(small, vocabulary=SMALL_VOCABULARY, config=SMALL)
    layout = SMALL_VOCABULARY.layout
    rng = torch.Generator().manual_seed(1)
    history = torch.randn(200, SMALL.embedding, generator=rng)
    uniform = torch.rand(200, layout.size, generator=rng, dtype=torch.float64)
    with torch.inference_mode():
        visit, ended = draw_visit(model.head, history, uniform=uniform)
    threshold = np.log(uniform.numpy()) - np.log1p(-uniform.numpy())
    tokens = np.zeros((200, layout.size))
    alone = naive_head_of(small, history.numpy(), tokens)[:, layout.codes] > threshold[:, layout.codes]
    for token in (*range(layout.codes.stop), layout.end):
        tokens[:, token] = naive_head_of(small, history.numpy(), tokens)[:, token] > threshold[:, token]
    np.testing.assert_array_equal(visit.numpy(), tokens[:, layout.codes])
    np.testing.assert_array_equal(ended.numpy(), tokens[:, layout.end])
    assert (alone != visit.numpy()).any(axis=1).mean() > 0.2  # codes do depend on each other


def naive_head_of(weights, history, tokens):
    """(n, V) logits."""
    z = np.concatenate([history.astype(np.float64), tokens], axis=1)[None]
    return naive_head(z, {k: w.astype(np.float64) for k, w in weights.items()}, SMALL.embedding)[0]


def test_whole_patients_equal_a_token_by_token_sampler_on_the_naive_model(small):
    """Same uniforms, another program: dense, padded, one token at a time."""
    number, layout = 12, SMALL_VOCABULARY.layout
    records = new(small, number, words=SMALL_VOCABULARY, config=SMALL, seed=3)
    expected = naive_tensor(records, SMALL_VOCABULARY, length=SMALL.maximum_visits + 2)
    words = -(-layout.size // 4)
    for i in range(number):
        rows = np.zeros((1, SMALL.maximum_visits + 2, layout.size))
        rows[0, 0, layout.start] = 1
        for visit in range(1 + SMALL.maximum_visits):
            bits = np.random.Philox(key=stream(3, "sample", visit))
            uniform = np.random.Generator(bits.advance(i * words)).random(layout.size)
            own = rows[0, 1 + visit]
            context = range(layout.groups.start, layout.phenotypes.stop)
            for token in context if visit == 0 else (*range(layout.codes.stop), layout.end):
                block = next((b for b in (layout.groups, layout.sexes, layout.ages) if b.start <= token < b.stop), None)
                p = 1 / (1 + np.exp(-naive_logits(small, rows[:, : visit + 2], config=SMALL)[0, visit]))
                if block is None:
                    own[token] = uniform[token] < p[token]
                elif not own[block].any():
                    fires = p[token] / (1 - np.prod(1 - p[token : block.stop]))
                    own[token] = token == block.stop - 1 or uniform[token] < fires
            if own[layout.end]:
                break
        own[layout.end] = 1
        np.testing.assert_array_equal(rows[0], expected[i])


def test_the_first_to_fire_follows_the_renormalised_chances():
    logits = torch.tensor([-1.0, 0.5, -8.0, -2.0], dtype=torch.float64)
    p = torch.sigmoid(logits).numpy()
    first = p * np.cumprod(np.concatenate([[1], 1 - p[:-1]]))
    uniform = torch.rand(DRAWS, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    chances = one_of(logits[None])
    np.testing.assert_allclose(chances[0], first / first.sum(), rtol=1e-12)
    seen = np.bincount(first_to_fire(chances.expand(DRAWS, 4), uniform=uniform), minlength=4)
    keep = [0, 1, 3]  # the third hardly ever fires
    assert stats.chisquare(seen[keep], first[keep] / first[keep].sum() * seen[keep].sum()).pvalue > 0.01


# --- what does not depend on what ----------------------------------------------------------------------------------


def equal(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in FIELDS)


def test_patients_are_the_same_in_any_batch_and_beside_any_neighbours(small):
    options = {"words": SMALL_VOCABULARY, "config": SMALL, "seed": 8}
    together = new(small, 200, **options)
    assert equal(together, new(small, 200, batch_size=7, **options))
    assert equal(together.take(np.arange(31)), new(small, 31, **options))
    mixed = Conditions(group=np.where(np.arange(200) < 31, -1, 2), label=np.full(200, -1))
    beside = sample(small, vocabulary=SMALL_VOCABULARY, config=SMALL, conditions=mixed, seed=8)
    assert equal(together.take(np.arange(31)), beside.take(np.arange(31)))


def test_another_seed_gives_other_patients_and_the_global_state_stays(small):
    state = torch.get_rng_state()
    options = {"words": SMALL_VOCABULARY, "config": SMALL}
    assert equal(new(small, 20, seed=1, **options), new(small, 20, seed=1, **options))
    assert not equal(new(small, 20, seed=1, **options), new(small, 20, seed=2, **options))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_sampled_record_has_the_structure_of_a_record_even_from_rough_weights():
    layout = SMALL_VOCABULARY.layout
    weights = rough_weights(words=SMALL_VOCABULARY, config=SMALL, seed=1)
    records = new(weights, 150, words=SMALL_VOCABULARY, config=SMALL)
    assert len(records) == len(records.patient_offsets) - 1 == len(records.context_offsets) - 1 == 150
    assert 1 <= records.visit_counts.min() <= records.visit_counts.max() <= SMALL.maximum_visits
    assert 0 <= records.codes.min() <= records.codes.max() < layout.codes.stop
    owner = np.repeat(np.arange(150), np.diff(records.context_offsets))
    for block in (layout.groups, layout.sexes, layout.ages):
        inside = (records.context >= block.start) & (records.context < block.stop)
        np.testing.assert_array_equal(owner[inside], np.arange(150))
    for i, context in enumerate(np.split(records.context, records.context_offsets[1:-1])):
        assert list(context) == sorted(set(context))
        assert layout.groups.start + records.group[i] in context
        assert (layout.label in context) == records.label[i]
    for visit in np.split(records.codes, records.visit_offsets[1:-1]):
        assert list(visit) == sorted(set(visit))


@pytest.mark.parametrize(("end", "capped", "visits"), [(-40.0, 50, 3), (40.0, 0, 1)])
def test_patients_that_the_cap_ends_are_counted(end, capped, visits):
    config = GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=3)
    weights = initial_weights(TINY_VOCABULARY, config, seed=1)
    weights["head.output_bias"][LAYOUT.end] = end
    model = build(weights, vocabulary=TINY_VOCABULARY, config=config)
    drawn = draw(model, conditions=Conditions.free(50), seed=1)
    assert drawn.capped == capped
    assert set(drawn.records.visit_counts) == {visits}


def test_no_conditions_give_no_patients(tiny):
    records = new(tiny, 0)
    assert len(records) == records.visits == 0
    assert equal(records, records.take(ints([])))
