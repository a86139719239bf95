"""The server's door: each kind of poison is refused with a code, and the study goes on with a quorum."""

from __future__ import annotations

import json

import numpy as np
import pytest
from federation_toys import InProcess, toy_plan, toy_sites

from fairsynth.config import ObjectiveConfig, TrainingConfig
from fairsynth.errors import ProtocolError
from fairsynth.federation.journal import read
from fairsynth.federation.messages import Envelope
from fairsynth.federation.plans import APPROACHES
from fairsynth.federation.rounds import run_study

ROSTER = ("site-a", "site-b", "site-c")
BRIEF = TrainingConfig(rounds=1, local_epochs=1, round_deadline_seconds=1)


def refusals(plan, poison, root):
    """What the journal says of `site-b` when `poison` is done to its replies; the study itself must finish."""
    run_study(InProcess(toy_sites(plan, b=poison)), plan=plan, root=root)
    events = read(root / "journal.jsonl")
    assert events[-1]["event"] == "finished"
    assert {event["site"] for event in events if event["event"] == "refused"} <= {"site-b"}
    return [event for event in events if event["event"] == "refused"]


def told(events):
    return " ".join(problem for event in events for problem in event["problems"])


def field(kind, **changes):
    """Changes JSON fields of one kind of reply; a callable gets the old value."""

    def poison(asked, envelope):
        if asked != kind:
            return envelope
        fields = json.loads(envelope.fields)
        for name, value in changes.items():
            fields[name] = value(fields[name]) if callable(value) else value
        return Envelope(kind=envelope.kind, fields=json.dumps(fields), arrays=envelope.arrays)

    return poison


def array(kind, name, change):
    """Changes one array of one kind of reply; None drops it. `name` may be a prefix."""

    def poison(asked, envelope):
        if asked != kind:
            return envelope
        arrays = dict(envelope.arrays)
        for key in sorted(arrays):
            if key.startswith(name):
                value = change(arrays.pop(key).copy())
                if value is not None:
                    arrays[key] = value
                break
        return Envelope(kind=envelope.kind, fields=envelope.fields, arrays=arrays)

    return poison


def put(value, *where):
    def change(values):
        values[where or (0,) * values.ndim] = value
        return values

    return change


def changed(*path, to):
    """Changes one value of the first change that the audit tells."""

    def put_there(changes):
        target = changes[0]
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to
        return changes

    return field("audit", changes=put_there)


FIELDS = {
    "a site outside the roster": (field("train", site="site-z"), "site breaks|of the roster"),
    "another site of the roster": (field("train", site="site-a"), "the one that was asked"),
    "another plan": (field("train", plan_sha256="0" * 64), "plan_sha256"),
    "another arm": (field("train", arm="other"), "arm and round"),
    "another round": (field("train", round=99), "arm and round"),
    "more patients than enrolled": (field("train", patients=10**6), "patients"),
    "negative patients": (field("train", patients=-50), "valid"),
    "patients as a fraction": (field("train", patients=42.5), "valid"),
    "a loss that is not a number": (field("train", nll_train=float("nan")), "not plain JSON"),
    "a negative loss": (field("train", nll_validation=-1.0), "nll_train"),
    "more visits than enrolled": (field("train", cells_train=10**9), "cells_train"),
    "an unknown field": (field("train", extra=1), "valid"),
    "a count below the disclosure limit": (field("enrol", codes={"DX//CCS//2": 3}), "minimum_patients"),
    "a code of more patients than there are": (field("enrol", codes={"DX//CCS//2": 43}), "minimum_patients"),
    "no codes at all": (field("enrol", codes={}), "at least one"),
    "a hash that is none": (field("enrol", data_sha256="patient 17"), "data_sha256"),
    "fewer visits than patients": (field("enrol", visits=3), "visits"),
    "another vocabulary": (field("agree", vocabulary_sha256="0" * 64), "vocabulary_sha256"),
    "a share above one": (field("agree", mapped_share=1.5), "mapped_share"),
    "other approaches": (field("audit", approaches=APPROACHES[::-1]), "axes"),
    "other seeds": (field("audit", seeds=7), "axes"),
    "no change told": (field("audit", changes=[]), "one for each predictor and threshold"),
    "a change twice": (field("audit", changes=lambda old: old[:1] * len(old)), "one for each predictor and threshold"),
    "a change of another predictor": (changed("predictor", to="oracle"), "one for each predictor and threshold"),
    "a change of more seeds than planned": (changed("f1", "seeds", to=99), "at most the planned seeds"),
    "a change of no seed": (changed("gain", "seeds", to=0), "no limit without a mean"),
    "limits without a mean": (changed("gain", "mean", to=None), "no limit without a mean"),
    "one limit alone": (changed("gain", "high", to=None), "no limit without a mean"),
    "a lower limit above the upper": (changed("f1", "low", to=0.9), "the lower one first"),
    "worst TPR that rises by another mean": (changed("gain", "mean", to=0.99), "means as the counts have them"),
    "F1 that rises by another mean": (changed("f1", "mean", to=0.501), "means as the counts have them"),
    "F1 of another number of seeds": (changed("f1", "seeds", to=1), "means as the counts have them"),
    "parity that the counts do not know": (
        changed("abs_log_di", to={"mean": 0.1, "low": None, "high": None, "seeds": 2}),
        "means as the counts have them",
    ),
    "no word on F1, which the counts know": (
        changed("f1", to={"mean": None, "low": None, "high": None, "seeds": 0}),
        "means as the counts have them",
    ),
    "a change that is not a number": (changed("gain", "mean", to=float("nan")), "not plain JSON"),
    "a limit without end": (changed("gain", "high", to=float("inf")), "not plain JSON"),
}

ARRAYS = {
    "a weight that is not a number": (array("train", "weight/", put(np.nan)), "not a finite number"),
    "an infinite weight": (array("train", "weight/", put(np.inf)), "not a finite number"),
    "a weight of 1e15": (array("train", "weight/", put(1e15)), "within what training can move"),
    "a weight of 1e38": (array("train", "weight/", put(1e38)), "within what training can move"),
    "a scalar for a matrix": (array("train", "weight/", lambda _: np.array(1, dtype=np.float32)), "another shape"),
    "weights as float64": (array("train", "weight/", lambda old: old.astype(np.float64)), "another shape or dtype"),
    "weights as integers": (array("train", "weight/", lambda old: old.astype(np.int64)), "another shape or dtype"),
    "a missing weight": (array("train", "weight/", lambda _: None), "array missing"),
    "missing statistics": (array("train", "soft", lambda _: None), "array missing"),
    "a negative true positive": (array("train", "soft", put(-50, 0, 3)), "counts from 0"),
    "TP above P": (array("train", "soft", put(10**6, 0, 3)), "TP at most P"),
    "TP above S": (array("train", "hard", put(0, 0, 2)), "TP at most S"),
    "another N": (array("train", "soft", put(9, 1, 0)), "N as enrolled"),
    "P that differs between soft and hard": (array("train", "hard", put(31, 0, 1)), "the same N and P"),
    "a fraction among hard counts": (array("train", "hard", put(20.5, 0, 2)), "whole numbers"),
    "S above visits x codes": (array("train", "soft", put(1e9, 0, 2)), "S at most visits x codes"),
    "statistics of another group number": (array("train", "soft", lambda old: old[:1]), "another shape"),
    "negative members": (array("enrol", "members", put(-4)), "counts from 0"),
    "a cohort unlike the enrolment": (array("agree", "cohort", put(99)), "training patients as enrolled"),
    "members of 2^62": (array("enrol", "members", put(1 << 62)), "counts from 0 to 2^40"),
    "audited patients that are not held out": (array("audit", "confusion", put(77)), "held-out patients"),
    "scores of too few patients": (array("audit", "scores", put(1)), "held-out patients"),
    "scores of other patients alone": (array("audit", "alone", put(1)), "held-out patients"),
    "more visits with a code than visits": (array("audit", "code_visits", put(91)), "at most all visits"),
    "negative synthetic patients": (array("audit", "synthetic", put(-1)), "counts from 0"),
    "audit counts as floats": (
        array("audit", "synthetic", lambda old: old.astype(np.float64)),
        "another shape or dtype",
    ),
}


@pytest.mark.parametrize("name", FIELDS | ARRAYS)
def test_a_poisoned_reply_is_refused_with_a_reason_and_the_others_go_on(name, tmp_path):
    poison, expected = (FIELDS | ARRAYS)[name]
    events = refusals(toy_plan(roster=ROSTER, training=BRIEF), poison, tmp_path)
    assert {event["code"] for event in events} == {"FS-302"}
    assert any(part in told(events) for part in expected.split("|"))


def test_an_unknown_array_is_refused_without_repeating_its_name(tmp_path):
    def poison(kind, envelope):
        arrays = {**envelope.arrays, "CANARY-patient-17": np.zeros(1)}
        return Envelope(kind=envelope.kind, fields=envelope.fields, arrays=arrays)

    events = refusals(toy_plan(roster=ROSTER, training=BRIEF), poison, tmp_path)
    assert "unknown arrays" in told(events)
    assert "CANARY" not in (tmp_path / "journal.jsonl").read_text()


def test_a_reply_of_another_kind_is_refused(tmp_path):
    def poison(kind, envelope):
        return Envelope(kind="enrolled", fields=envelope.fields, arrays=envelope.arrays)

    events = refusals(
        toy_plan(roster=ROSTER, training=BRIEF), lambda kind, e: poison(kind, e) if kind == "train" else e, tmp_path
    )
    assert "another kind" in told(events)


def test_a_refused_site_counts_again_in_the_next_round(tmp_path):
    only_first = lambda kind, envelope: (  # noqa: E731
        field("train", patients=1)(kind, envelope) if json.loads(envelope.fields).get("round") == 0 else envelope
    )
    plan = toy_plan(roster=ROSTER)
    run_study(InProcess(toy_sites(plan, b=only_first)), plan=plan, root=tmp_path)
    lines = [event["sites"] for event in read(tmp_path / "journal.jsonl") if event["event"] == "round"]
    assert lines[:3] == [["site-a", "site-c"], list(ROSTER), list(ROSTER)]


def test_all_problems_of_a_reply_are_told_at_once(tmp_path):
    poison = field("enrol", visits=3, data_sha256="x", codes={})
    (event,) = refusals(toy_plan(roster=ROSTER, training=BRIEF), poison, tmp_path)
    assert len(event["problems"]) == 3


def test_without_poison_nothing_is_refused(tmp_path):
    assert refusals(toy_plan(roster=ROSTER, training=BRIEF), lambda kind, envelope: envelope, tmp_path) == []


def label_counts(asked, envelope):
    """A reply that counts the label token: P must be the positives, S at most N."""
    if asked != "train":
        return envelope
    arrays = dict(envelope.arrays)
    members = np.array([[40, 5], [10, 2]]) if json.loads(envelope.fields)["site"] == "site-a" else None
    for name in ("soft", "hard"):
        counts = arrays[name].copy()
        if members is not None:
            counts[:, 1] = members[:, 1]
        else:
            counts[:, 1] = {"site-b": [4, 3], "site-c": [2, 1]}[json.loads(envelope.fields)["site"]]
        counts[:, 2], counts[:, 3] = np.floor(counts[:, 0] / 2), np.minimum(1, counts[:, 1])
        arrays[name] = counts
    return Envelope(kind=envelope.kind, fields=envelope.fields, arrays=arrays)


@pytest.mark.parametrize("column, expected", [(1, "P as enrolled"), (2, "S at most N")])
def test_counts_of_the_label_are_held_to_the_enrolled_patients(column, expected, tmp_path):
    plan = toy_plan(roster=ROSTER, objective=ObjectiveConfig(target="label"))
    bad = lambda kind, e: array("train", "soft", put(33, 0, column))(kind, label_counts(kind, e))  # noqa: E731
    sites = toy_sites(plan, a=label_counts, b=bad, c=label_counts)
    run_study(InProcess(sites), plan=plan, root=tmp_path)
    events = [event for event in read(tmp_path / "journal.jsonl") if event["event"] == "refused"]
    assert {event["site"] for event in events} == {"site-b"}
    assert expected in told(events)


def test_when_every_reply_is_poison_the_study_ends_with_one_clear_error(tmp_path):
    plan = toy_plan()
    bad = array("train", "weight/", put(np.nan))
    with pytest.raises(ProtocolError, match="0 of 2 sites: train, arm plain, round 0; site-a: FS-302"):
        run_study(InProcess(toy_sites(plan, a=bad, b=bad)), plan=plan, root=tmp_path)
