"""The masked sum: equal to the plain sum, equal to an independent implementation, and nothing for who sees less."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_toys import summed
from masking_reference import reference
from scipy import stats

from benchmarks.masking_vectors import CASES, case
from fairsynth.errors import ProtocolError
from fairsynth.federation.masking.keys import announce, pair_keys
from fairsynth.federation.masking.masks import Label, masked
from fairsynth.federation.masking.records import LIMIT, Record, Schema
from fairsynth.federation.masking.roster import Member, Roster, SignedRoster
from fairsynth.governance.identity import Identity

VECTORS = Path(__file__).resolve().parents[2] / "docs" / "vectors" / "masking.json"
RUN = "ab" * 32


class Circle:
    """`number` sites that know each other's keys."""

    def __init__(self, number: int, *, run: str = RUN) -> None:
        self.sites = [f"site-{index:02d}" for index in range(number)]
        self.identities = {site: Identity(key=Ed25519PrivateKey.generate()) for site in self.sites}
        members = tuple(Member(site=site, public_key=self.identities[site].public.hex()) for site in self.sites)
        self.roster = Roster(plan_sha256="cd" * 32, minimum_sites=min(number, 3), members=members)
        self.private = {site: X25519PrivateKey.generate() for site in self.sites}
        self.run = run
        self.announced = [
            announce(self.private[site], site=site, run=run, roster=self.roster, identity=self.identities[site])
            for site in self.sites
        ]

    def keys(self, site, announced=None, *, run=None, roster=None):
        return pair_keys(
            self.private[site],
            self.announced if announced is None else announced,
            site=site,
            roster=roster or self.roster,
            run=run or self.run,
        )


def label_of(length: int, *, purpose: str = "train|plain|0") -> Label:
    return Label(run=RUN, epoch=0, purpose=purpose, schema_sha256="ef" * 32, length=length)


CIRCLES = {number: Circle(number) for number in (2, 3, 5, 8)}


def test_the_published_vectors_are_what_this_version_makes():
    published = json.loads(VECTORS.read_text(encoding="utf-8"))
    assert published["cases"] == json.loads(json.dumps([case(name) for name in CASES]))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_an_independent_implementation_gives_the_published_vectors(number):
    published = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"][number]
    found = reference(
        published["values"],
        published["x25519_private"],
        roster=published["roster_sha256"],
        announced=published["announced"],
        label=published["label"],
    )
    assert {site: [f"{word:016x}" for word in words] for site, words in found.items()} == published["masked"]
    columns = zip(*published["values"].values(), strict=True)
    assert published["sum"] == [sum(column) for column in columns]


@pytest.mark.parametrize("number", range(2, 51))
def test_the_sum_is_the_plain_sum_bit_for_bit_for_2_to_50_sites(number):
    circle = Circle(number)
    draw = np.random.default_rng(number)
    values = {site: draw.integers(-LIMIT, LIMIT, size=31) for site in circle.sites}
    vectors = [masked(values[site], circle.keys(site), label=label_of(31)) for site in circle.sites]
    draw.shuffle(vectors)
    assert summed(vectors).tolist() == [sum(int(values[site][i]) for site in circle.sites) for i in range(31)]


@settings(max_examples=150, deadline=None)
@given(
    number=st.sampled_from(sorted(CIRCLES)),
    length=st.integers(0, 300),
    data=st.data(),
)
def test_any_numbers_in_any_order_of_arrival_give_their_sum(number, length, data):
    circle = CIRCLES[number]
    numbers = st.one_of(st.sampled_from([0, 1, 2**40 - 1, -LIMIT, LIMIT]), st.integers(-LIMIT, LIMIT))
    few = data.draw(st.lists(numbers, min_size=number, max_size=number))
    values = {site: np.full(length, value, dtype=np.int64) for site, value in zip(circle.sites, few, strict=True)}
    label = label_of(length)
    vectors = [masked(values[site], circle.keys(site), label=label) for site in circle.sites]
    order = data.draw(st.permutations(range(number)))
    assert summed(vectors[i] for i in order).tolist() == [sum(few)] * length


def test_a_vector_longer_than_a_block_is_masked_whole():
    circle, length = CIRCLES[3], (1 << 20) + 3
    values = {site: np.arange(length) * (index + 1) for index, site in enumerate(circle.sites)}
    vectors = {site: masked(values[site], circle.keys(site), label=label_of(length)) for site in circle.sites}
    assert np.array_equal(summed(vectors.values()), 6 * np.arange(length))
    for site, vector in vectors.items():
        assert (vector != values[site].view(np.uint64)).all()


def one_wrong(circle, *, change):
    """The sum when the last site's vector is changed."""
    label = label_of(4)
    vectors = {site: masked(np.ones(4, dtype=np.int64), circle.keys(site), label=label) for site in circle.sites}
    change(circle, vectors)
    return summed(vectors.values())


def drop(circle, vectors):
    del vectors[circle.sites[-1]]


def other_label(circle, vectors):
    site = circle.sites[-1]
    other = label_of(4, purpose="train|plain|1")
    vectors[site] = masked(np.ones(4, dtype=np.int64), circle.keys(site), label=other)


def other_run(circle, vectors):
    other = Circle(len(circle.sites), run="ba" * 32)
    site = circle.sites[-1]
    vectors[site] = masked(np.ones(4, dtype=np.int64), other.keys(site), label=label_of(4))


@pytest.mark.parametrize("change", [drop, other_label, other_run])
def test_what_is_not_of_one_label_of_all_sites_adds_up_to_nothing_plausible(change):
    total = one_wrong(CIRCLES[5], change=change)
    assert (np.abs(total.astype(float)) > 1 << 40).all()


def server_view(number: int, value: int, *, runs: int) -> np.ndarray:
    """(runs, 8) what the server sees of one word of the first site, over runs with keys of their own."""
    words = []
    for _ in range(runs):
        circle = Circle(number)
        words.append(masked(np.array([value]), circle.keys(circle.sites[0]), label=label_of(1)))
    return np.concatenate(words)


def test_the_server_sees_the_same_of_nothing_and_of_the_largest_number():
    least, most = server_view(3, 0, runs=1000), server_view(3, LIMIT, runs=1000)
    assert stats.ks_2samp(least, most).pvalue > 0.01 / 2
    ones = np.unpackbits(most.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5 * math.sqrt(0.25 / 1000)
    assert stats.chisquare(np.bincount(most.view(np.uint8), minlength=256)).pvalue > 0.001


def test_two_sites_hide_nothing_from_each_other_and_all_but_one_hide_nothing_of_the_one():
    for number in (2, 5):
        circle = CIRCLES[number]
        values = {site: np.array([index + 17]) for index, site in enumerate(circle.sites)}
        total = summed(masked(values[site], circle.keys(site), label=label_of(1)) for site in circle.sites)
        assert total - sum(values[site] for site in circle.sites[1:]) == values[circle.sites[0]]


def test_all_but_two_sites_with_the_server_learn_the_sum_of_the_two_alone():
    """What the colluders know of the two masks that remain between the honest sites: nothing but that they cancel."""
    circle = CIRCLES[5]
    honest, colluding = circle.sites[:2], circle.sites[2:]
    label, seen = label_of(200), {}
    for site, value in zip(honest, (5, 9), strict=True):
        seen[site] = masked(np.full(200, value), circle.keys(site), label=label)
    for site in honest:  # the colluders take out the masks that they share with the site
        for peer in colluding:
            known = {site: circle.keys(peer).keys[site]}
            keys = type(circle.keys(site))(site=site, keys={peer: known[site]})
            seen[site] = seen[site] - masked(np.zeros(200, dtype=np.int64), keys, label=label)
    assert summed(seen.values()).tolist() == [14] * 200
    left = seen[honest[0]]
    assert not np.isin(left, [5, 9, 14]).any()
    assert stats.kstest(left.astype(float) / 2**64, "uniform").pvalue > 0.001


# --- keys and rosters ------------------------------------------------------------------------------------------------


def altered(circle, index, **changes):
    announced = list(circle.announced)
    announced[index] = announced[index].model_copy(update=changes)
    return announced


def resigned(circle, index, *, signer, **changes):
    """A new key for a site, signed by somebody else."""
    private = X25519PrivateKey.generate()
    announced = list(circle.announced)
    site = circle.sites[index]
    announced[index] = announce(private, site=site, run=circle.run, roster=circle.roster, identity=signer)
    return announced


BAD_KEYS = {
    "a site fewer": lambda c: c.announced[:-1],
    "a site more": lambda c: [*c.announced, c.announced[-1]],
    "another order": lambda c: c.announced[::-1],
    "a key that the site did not sign": lambda c: altered(c, 1, public_key="11" * 32),
    "a key that another site signed": lambda c: resigned(c, 1, signer=c.identities[c.sites[2]]),
    "a key that the server signed": lambda c: resigned(c, 1, signer=Identity(key=Ed25519PrivateKey.generate())),
    "a key of another run": lambda c: altered(c, 1, run="00" * 32),
    "a key of another epoch": lambda c: altered(c, 1, epoch=1),
    "a key of another roster": lambda c: altered(c, 1, roster_sha256="00" * 32),
    "the same key twice": lambda c: altered(c, 1, public_key=c.announced[0].public_key),
    "another key for this site": lambda c: resigned(c, 0, signer=c.identities[c.sites[0]]),
    "a point of small order": lambda c: [one if i != 1 else small_order(c) for i, one in enumerate(c.announced)],
}


def small_order(circle):
    """The all-zero point, duly signed by its site."""

    class Zero:
        def public_key(self):
            return self

        def public_bytes_raw(self):
            return bytes(32)

    site = circle.sites[1]
    return announce(Zero(), site=site, run=circle.run, roster=circle.roster, identity=circle.identities[site])


@pytest.mark.parametrize("bad", BAD_KEYS)
def test_a_site_derives_no_secret_from(bad):
    circle = CIRCLES[3]
    with pytest.raises(ProtocolError):
        circle.keys(circle.sites[0], BAD_KEYS[bad](circle))


def test_who_saw_other_announcements_shares_no_key():
    circle = Circle(3)
    other = list(circle.announced)
    private = X25519PrivateKey.generate()
    site = circle.sites[2]
    other[2] = announce(private, site=site, run=RUN, roster=circle.roster, identity=circle.identities[site])
    first = circle.keys(circle.sites[0]).keys[circle.sites[1]]
    second = circle.keys(circle.sites[1], other).keys[circle.sites[0]]
    assert first != second


def test_both_sites_of_a_pair_derive_the_same_32_bytes():
    circle = CIRCLES[5]
    a, b = circle.sites[1], circle.sites[4]
    assert circle.keys(a).keys[b] == circle.keys(b).keys[a]
    assert len(circle.keys(a).keys[b]) == 32
    assert len({key for site in circle.sites for key in circle.keys(site).keys.values()}) == 10


def test_keys_are_not_in_the_text_of_what_holds_them():
    keys = CIRCLES[3].keys(CIRCLES[3].sites[0])
    assert not any(key.hex() in repr(keys) or str(key) in repr(keys) for key in keys.keys.values())


def signed(circle, *, plan="cd" * 32):
    found = SignedRoster(roster=circle.roster)
    for site in circle.sites:
        found = found.signed(site, circle.identities[site])
    return found


def test_a_roster_that_all_signed_is_verified():
    circle = CIRCLES[3]
    assert signed(circle).verified(plan_sha256="cd" * 32, sites=circle.sites) == circle.roster


BAD_ROSTERS = {
    "a signature missing": lambda s: s.model_copy(update={"signatures": dict(list(s.signatures.items())[1:])}),
    "a signature of another site": lambda s: s.model_copy(
        update={"signatures": {**s.signatures, "site-00": s.signatures["site-01"]}}
    ),
    "a signature of no member": lambda s: s.model_copy(update={"signatures": {**s.signatures, "x": "00" * 64}}),
    "a member fewer than was signed": lambda s: s.model_copy(
        update={
            "roster": s.roster.model_copy(update={"members": s.roster.members[:-1]}),
            "signatures": dict(list(s.signatures.items())[:-1]),
        }
    ),
    "a lower minimum than was signed": lambda s: s.model_copy(
        update={"roster": s.roster.model_copy(update={"minimum_sites": 1})}
    ),
    "another epoch than was signed": lambda s: s.model_copy(
        update={"roster": s.roster.model_copy(update={"epoch": 1})}
    ),
    "a key exchanged": lambda s: s.model_copy(
        update={
            "roster": s.roster.model_copy(
                update={"members": (Member(site="site-00", public_key="22" * 32), *s.roster.members[1:])}
            )
        }
    ),
}


@pytest.mark.parametrize("bad", BAD_ROSTERS)
def test_a_roster_is_refused_with(bad):
    with pytest.raises(ProtocolError):
        BAD_ROSTERS[bad](signed(CIRCLES[3])).verified(plan_sha256="cd" * 32, sites=CIRCLES[3].sites)


def test_a_roster_of_another_plan_is_refused():
    with pytest.raises(ProtocolError, match="another plan"):
        signed(CIRCLES[3]).verified(plan_sha256="00" * 32, sites=CIRCLES[3].sites)


def test_a_roster_of_some_of_the_plans_sites_is_refused_though_they_all_signed():
    """Its sums, taken from those over all sites, would be the numbers of the one that is left out."""
    with pytest.raises(ProtocolError, match="all sites of the plan"):
        signed(CIRCLES[3]).verified(plan_sha256="cd" * 32, sites=[*CIRCLES[3].sites, "site-99"])


def test_a_site_signs_no_roster_that_has_another_key_for_it():
    circle = CIRCLES[3]
    with pytest.raises(ProtocolError, match="another key"):
        SignedRoster(roster=circle.roster).signed(circle.sites[0], circle.identities[circle.sites[1]])


# --- fixed point -----------------------------------------------------------------------------------------------------


MEAN = Record(name="w", shape=(3,), bits=24, bound=1024.0, lower=-1024.0, mean=True)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 1 << 20), min_size=2, max_size=64),
    seed=st.integers(0, 2**31),
)
def test_a_weighted_mean_is_as_near_as_promised(sizes, seed):
    draw, n = np.random.default_rng(seed), sum(sizes)
    values = [draw.uniform(-1024, 1024, size=3) for _ in sizes]
    schema = Schema(records=(MEAN,), patients=n)
    total = np.sum([schema.vector({"w": v}, patients=s) for v, s in zip(values, sizes, strict=True)], axis=0)
    exact = sum(v * s for v, s in zip(values, sizes, strict=True)) / n
    assert np.abs(schema.arrays(total)["w"] - exact).max() <= len(sizes) * 2**-25 / n + 1e-12


@pytest.mark.parametrize(
    ("record", "value", "patients"),
    [
        (MEAN, np.array([0, 0, 1025.0]), 1),
        (MEAN, np.array([0, 0, np.nan]), 1),
        (MEAN, np.array([0, 0, -np.inf]), 1),
        (MEAN, np.zeros(3), (1 << 20) + 1),
        (MEAN, np.zeros(3), 0),
        (Record(name="w", shape=(2,)), np.array([-1, 0]), 1),
        (Record(name="w", shape=(2,)), np.array([1 << 41, 0]), 1),
    ],
)
def test_a_number_out_of_its_bounds_spoils_the_sum_and_not_the_sites_answer(record, value, patients):
    """A site that failed in the open would answer a question about its numbers, as often as it is asked."""
    schema = Schema(records=(record,), patients=10)
    good = schema.vector({"w": np.zeros(record.shape, dtype=np.int64)}, patients=1)
    bad = schema.vector({"w": value}, patients=patients)
    assert np.abs(bad.astype(float)).max() <= LIMIT
    with pytest.raises(ProtocolError, match="out of their bounds") as refused:
        schema.arrays(good + bad)
    assert "1025" not in str(refused.value)
    assert schema.arrays(good + good)["w"].tolist() == [0] * record.size


@pytest.mark.parametrize("value", [np.zeros(3, dtype=np.int64), np.array([0.5, 0]), np.array(["a", "b"])])
def test_another_shape_or_type_is_a_fault_of_the_program_and_is_refused(value):
    with pytest.raises(ProtocolError):
        Schema(records=(Record(name="w", shape=(2,)),)).vector({"w": value})


def test_records_that_could_wrap_are_refused_when_they_are_written_down():
    with pytest.raises(ProtocolError, match="wrap"):
        Schema(records=(Record(name="w", shape=(1,), bits=30, bound=float(1 << 40)),))
    with pytest.raises(ProtocolError, match="wrap"):
        Schema(records=(Record(name="w", shape=(1,), bits=27, bound=1024.0, mean=True),))


def test_what_is_above_0_stays_above_0_where_it_is_rounded_up():
    record = Record(name="v", shape=(1,), bits=20, bound=64.0, mean=True, rounding="up")
    schema = Schema(records=(record,), patients=10)
    assert schema.vector({"v": np.array([1e-30])}, patients=3).tolist() == [1, 0]


def test_schemas_that_differ_in_anything_have_other_labels():
    base = Schema(records=(MEAN,), patients=10)
    others = [
        Schema(records=(Record(name="w", shape=(3,), bits=23, bound=1024.0, lower=-1024.0, mean=True),), patients=10),
        Schema(records=(Record(name="v", shape=(3,), bits=24, bound=1024.0, lower=-1024.0, mean=True),), patients=10),
    ]
    assert len({base.sha256, *(other.sha256 for other in others)}) == 3
    assert Schema(records=(MEAN,), patients=11).sha256 == base.sha256  # n is the server's word: it moves no label


@pytest.mark.slow
def test_10_000_sums_of_2_to_50_sites_are_the_plain_sums():
    draw = np.random.default_rng(8)
    circles = {number: Circle(number) for number in range(2, 51)}
    keys = {number: {site: circle.keys(site) for site in circle.sites} for number, circle in circles.items()}
    for trial in range(10_000):
        number, length = int(draw.integers(2, 51)), int(draw.integers(0, 40))
        sites = circles[number].sites
        label = label_of(length, purpose=f"train|plain|{trial}")
        values = draw.integers(-LIMIT, LIMIT, size=(number, length), endpoint=True)
        vectors = [masked(own, keys[number][site], label=label) for own, site in zip(values, sites, strict=True)]
        draw.shuffle(vectors)
        assert np.array_equal(summed(vectors), values.sum(axis=0))
