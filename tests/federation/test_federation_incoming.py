"""The site's door: what a server may ask, and what it may not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation_toys import toy_plan
from poison_cases import NARROW, STUDY, TEXT

from fairsynth.errors import ProtocolError
from fairsynth.federation.incoming import CAPS, Requests, check_agree, check_plan, constructed, forget, remember
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    AgreeRequest,
    AuditRequest,
    EnrolRequest,
    FeedbackRequest,
    TeachRequest,
    TrainRequest,
    weights_as,
)
from fairsynth.federation.plans import ARMS
from fairsynth.federation.wire import outgoing

PLAN, WORDS = STUDY.plan, STUDY.words
DOOR = Requests(plan=PLAN, vocabulary=WORDS, patients=99, visits=180)
SENT = STUDY.sent
SMALL = {name: np.full_like(array, 1e-4) for name, array in SENT.items()}
SQUARES = {name: array**2 for name, array in SMALL.items()}
GUIDE = {"teacher": STUDY.teacher, "selected": np.array([0.5, 0.6])}


def train(*, arm="fairsynth", round=1, epochs=1, **changed):
    """The fields and arrays of a train request, and changes of its arrays by name; None drops one."""
    arrays = {
        **outgoing(SENT, WEIGHT, wire="float32"),
        **outgoing(SMALL, FIRST, wire="float32"),
        **outgoing(SQUARES, SECOND, wire="float32"),
        "coefficients": np.full((2, 2), 0.01),
    }
    if round == 0 or not epochs:
        arrays = {name: array for name, array in arrays.items() if not name.startswith((FIRST, SECOND))}
    arrays |= changed.pop("arrays", {})
    body = TrainRequest(**STUDY.names, arm=arm, round=round, epochs=epochs, **changed)
    return body, {name: array for name, array in arrays.items() if array is not None}


def refused(act, *expected):
    with pytest.raises(ProtocolError) as caught:
        act()
    told = [f"{one.where} {one.expected}" for one in caught.value.problems]
    assert TEXT not in str(caught.value)
    for part in expected:
        assert any(part in one for one in told), told


@pytest.mark.parametrize(("round", "epochs"), [(0, 1), (1, 1), (2, 0)])
def test_requests_of_a_study_pass(round, epochs, tmp_path):
    values = np.zeros((2, 2)) if not epochs else np.full((2, 2), 0.01)
    body, arrays = train(round=round, epochs=epochs, arrays={"coefficients": values})
    DOOR.train(body, arrays, root=tmp_path)


def test_the_other_requests_of_a_study_pass():
    DOOR.teach(TeachRequest(**STUDY.names), {"weights": STUDY.teacher})
    DOOR.feedback(FeedbackRequest(**STUDY.names), {**weights_as(SENT), **GUIDE})
    both = {name: array for arm in ARMS for name, array in weights_as(SENT, f"{arm}/{WEIGHT}").items()}
    DOOR.audit(AuditRequest(**STUDY.names), {**both, **GUIDE})
    check_plan(PLAN)


def far(name, value):
    return {f"{WEIGHT}{name}": np.full_like(SENT[name], value)}


def rows(name, change):
    """A weight matrix after `change` of its rows."""
    array = SENT[name].copy()
    change(array)
    return {f"{WEIGHT}{name}": array}


def repeat_rows(array):
    array[: len(array) // 2] = array[0]


def depend(array):
    array[:, -1] = array[:, 0] + array[:, 1]


MATRIX = "blocks.0.mlp_in.weight"
BAD = {
    "an arm that is none": ({"arm": TEXT}, "arm of the study"),
    "a round after the last": ({"round": 3, "epochs": 0}, "round of the plan"),
    "more epochs than planned": ({"epochs": 50}, "epochs the plan's"),
    "training after the last round": ({"round": 2, "epochs": 1}, "epochs the plan's"),
    "no training in a round": ({"round": 1, "epochs": 0}, "epochs the plan's"),
    "a run of codes that is none": ({"exclusive": (99,)}, "exclusive runs of codes"),
    "a run of codes twice": ({"exclusive": (0, 0)}, "exclusive runs of codes"),
    "a weight that is not a number": ({"arrays": far("embedding", np.nan)}, "weight/embedding"),
    "a missing weight": ({"arrays": {f"{WEIGHT}embedding": None}}, "weight/embedding"),
    "an unknown array": ({"arrays": {TEXT: np.zeros(3)}}, "1 of them"),
    "weights of another shape": ({"arrays": {f"{WEIGHT}embedding": np.zeros((3, 3), np.float32)}}, "weight/embedding"),
    "weights in 64 bits": ({"arrays": {f"{WEIGHT}norm.bias": np.zeros(8)}}, "float32 (8,)"),
    "coefficients of other groups": ({"arrays": {"coefficients": np.zeros((3, 2))}}, "coefficients"),
    "coefficients without end": ({"arrays": {"coefficients": np.full((2, 2), np.inf)}}, "coefficients"),
    "coefficients in the plain arm": ({"arm": "plain"}, "coefficients none where nothing is steered"),
    "weights that no training makes": ({"arrays": far("embedding", 1e6)}, "embedding within what training can reach"),
    "moments that no clipped gradient makes": (
        {"arrays": outgoing({n: a * 1e4 for n, a in SMALL.items()}, FIRST, wire="float32")},
        "first moments norm at most 1",
    ),
    "a moment missing": ({"arrays": {f"{FIRST}embedding": None}}, "first/embedding"),
    "one row again and again": ({"arrays": rows(MATRIX, repeat_rows)}, f"{MATRIX} rows that differ"),
    "columns that depend on each other": ({"arrays": rows(MATRIX, depend)}, f"{MATRIX} rows that are independent"),
    "a matrix of one number": ({"arrays": far(MATRIX, 0.5)}, f"{MATRIX} rows that differ"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_train_request_that_no_sound_server_sends_is_refused(name, tmp_path):
    changes, expected = BAD[name]
    body, arrays = train(**changes)
    refused(lambda: DOOR.train(body, arrays, root=tmp_path), expected)


def test_all_problems_of_a_request_are_told_at_once(tmp_path):
    body, arrays = train(arm=TEXT, epochs=9, arrays={f"{WEIGHT}embedding": None})
    refused(
        lambda: DOOR.train(body, arrays, root=tmp_path), "arm of the study", "epochs the plan's", "weight/embedding"
    )


def test_a_round_has_one_request_and_never_comes_back(tmp_path):
    first, second = train(round=0), train(round=1)
    for body, arrays in (first, second):
        DOOR.train(body, arrays, root=tmp_path)
        remember(tmp_path, body, arrays, plan=PLAN)
    DOOR.train(*second, root=tmp_path)  # a server that starts again asks the same
    other = train(round=1, arrays={"coefficients": np.full((2, 2), 0.02)})
    refused(lambda: DOOR.train(*other, root=tmp_path), "the same request again")
    last = train(round=2, epochs=0, arrays={"coefficients": np.zeros((2, 2))})
    remember(tmp_path, *last, plan=PLAN)
    new = train(round=1, arrays={"coefficients": np.full((2, 2), 0.03)})
    refused(lambda: DOOR.train(*new, root=tmp_path), "later than those asked")
    plain = train(arm="plain", round=0, arrays={"coefficients": np.zeros((2, 2))})
    DOOR.train(*plain, root=tmp_path)  # the arms have rounds of their own
    forget(tmp_path)
    DOOR.train(*other, root=tmp_path)


def test_in_16_bits_what_travels_is_checked_as_what_it_means(tmp_path):
    door = Requests(plan=NARROW.plan, vocabulary=WORDS, patients=99, visits=180)
    body = TrainRequest(**NARROW.names, arm="plain", round=0, epochs=1)
    arrays = {**outgoing(SENT, WEIGHT, wire="bfloat16"), "coefficients": np.zeros((2, 2))}
    door.train(body, arrays, root=tmp_path)
    large = outgoing({**SENT, "embedding": np.full_like(SENT["embedding"], 1e6)}, WEIGHT, wire="bfloat16")
    refused(lambda: door.train(body, {**arrays, **large}, root=tmp_path), "embedding within what training can reach")


def test_random_and_trained_models_have_no_constructed_pattern():
    assert all(constructed(SENT).values())
    draw = np.random.default_rng(1)
    trained = {name: array + draw.normal(0, 0.5, array.shape).astype(np.float32) for name, array in SENT.items()}
    assert all(constructed(trained).values())


OTHERS = {
    "a teacher of huge log-odds": (
        lambda: DOOR.teach(TeachRequest(**STUDY.names), {"weights": STUDY.teacher * 1e6}),
        "weights log-odds up to 1000",
    ),
    "a teacher of other tokens": (lambda: DOOR.teach(TeachRequest(**STUDY.names), {"weights": np.zeros(3)}), "weights"),
    "an audit of one arm": (
        lambda: DOOR.audit(AuditRequest(**STUDY.names), {**weights_as(SENT, "plain/weight/"), **GUIDE}),
        "fairsynth/weight/",
    ),
    "a feedback without a guide": (lambda: DOOR.feedback(FeedbackRequest(**STUDY.names), weights_as(SENT)), "selected"),
    "feedback on weights that no training makes": (
        lambda: DOOR.feedback(
            FeedbackRequest(**STUDY.names), {**weights_as({**SENT, "positions": SENT["positions"] + 1e6}), **GUIDE}
        ),
        "positions within what training can reach",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_request_that_no_sound_server_sends_is_refused(name):
    act, expected = OTHERS[name]
    refused(act, expected)


def agree(codes=("a", "b"), patients=4, visits=6, members=((1, 1), (1, 1))):
    body = AgreeRequest(plan_sha256="0" * 64, codes=codes, patients=patients, visits=visits)
    check_agree(body, {"members": np.array(members)}, plan=PLAN)


def test_a_vocabulary_and_totals_that_fit_pass():
    agree()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"codes": ("b", "a")}, "codes sorted"),
        ({"codes": ("a", "a")}, "codes sorted"),
        ({"codes": ()}, "codes 1 to"),
        ({"codes": tuple(f"{n:05}" for n in range(4001))}, "codes 1 to"),
        ({"codes": ("a\n",)}, "printable"),
        ({"patients": 5}, "members as many as patients"),
        ({"visits": 3}, "visits one to"),
        ({"visits": 99}, "visits one to"),
        ({"members": ((5, -1), (0, 0))}, "members counts from 0"),
        ({"members": ((1, 1),)}, "members"),
    ],
)
def test_a_vocabulary_or_totals_that_do_not_fit_are_refused(changes, expected):
    refused(lambda: agree(**changes), expected)


@pytest.mark.parametrize("name", CAPS)
def test_a_plan_that_asks_for_more_than_a_hospitals_computer_has_is_refused(name):
    value = PLAN
    for part in name.split("."):
        value = getattr(value, part)
    more = CAPS[name] + 1 if isinstance(value, int) else tuple(f"x{n}" for n in range(CAPS[name] + 1))
    refused(lambda: check_plan(changed(PLAN, name.split("."), more)), f"plan -> {name}")


@pytest.mark.parametrize("required", [("nowhere",), (PLAN.roster[0],) * 2, PLAN.roster])
def test_a_plan_that_requires_sites_which_its_quorum_cannot_have_is_refused(required):
    plan = PLAN.model_copy(update={"required": required, "quorum": len(PLAN.roster) - 1})
    refused(lambda: check_plan(plan), "plan -> required")


def test_a_plan_that_requires_a_site_of_its_roster_is_accepted():
    check_plan(PLAN.model_copy(update={"required": PLAN.roster[:1]}))


def test_a_request_whose_plan_requires_sites_is_read_and_one_that_says_none_in_another_form_is_not():
    plan = toy_plan(required=("site-b",))
    assert EnrolRequest.unpack(EnrolRequest(plan=plan).pack()).plan == plan
    request = EnrolRequest(plan=toy_plan()).pack()
    for value in ([], ["nowhere"], ["site-b", "site-b"], [1], "site-b"):
        fields = json.loads(request.fields)
        fields["plan"]["required"] = value
        with pytest.raises(ProtocolError) as caught:
            EnrolRequest.unpack(request.model_copy(update={"fields": json.dumps(fields)}))
        assert "nowhere" not in str(caught.value)


def changed(model, path, value):
    """`model` with another `value` at the end of `path`."""
    first, *rest = path
    return model.model_copy(update={first: changed(getattr(model, first), rest, value) if rest else value})
