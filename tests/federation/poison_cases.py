"""The poison corpus: one honest reply of each kind, and what a broken or malicious site may make of it.

`CASES` maps a name to (kind of request, what is done to the honest reply). Every case differs from honesty in one
thing. `check` is the server's door, `honest` the reply before. `CANARY` numbers and texts must never be repeated.
"""

from __future__ import annotations

import json

import numpy as np
from federation_toys import toy_plan, toy_sites

from fairsynth.config import AugmentationConfig, TrainingConfig
from fairsynth.federation.bounds import STRIDE, reach
from fairsynth.federation.flower import decode, encode
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    AgreeRequest,
    AuditRequest,
    EnrolRequest,
    Envelope,
    FeedbackRequest,
    TeachRequest,
    TrainRequest,
)
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.taught_replies import fed_back, taught
from fairsynth.federation.terms import columns
from fairsynth.federation.validation import Door
from fairsynth.federation.wire import CHANGE, narrow, outgoing
from fairsynth.generator.base_rates import BIAS
from fairsynth.generator.model import initial_weights
from fairsynth.visits.cohort import shared_vocabulary

CODES = ("DX//CCS//1", "DX//CCS//2", "RX//aspirin")
NUMBER = 7777771  # a canary: no door may repeat it
TEXT = "CANARY-patient-17"


class Study:
    """What one honest site, `site-b`, said in a study, and the door that it said it to."""

    def __init__(self, *, wire="float32", training=True):
        self.plan = toy_plan(
            training=TrainingConfig(rounds=2, local_epochs=1, primed=True, wire=wire, round_deadline_seconds=1),
            augmentation=AugmentationConfig(synthetic_patients=10, candidates="taught"),
        )
        self.site = toy_sites(self.plan)["site-b"]
        self.words = shared_vocabulary(CODES, plan=self.plan)
        self.door = Door(plan=self.plan)
        self.names = {"plan_sha256": plan_sha256(self.plan), "vocabulary_sha256": self.words.sha256}
        self.sent = initial_weights(self.words, self.plan.generator, seed=3)
        self.asked = TrainRequest(**self.names, arm="plain", round=1, epochs=int(training))
        self.teacher = np.full(columns(self.words) + 1, 0.1)
        self.honest = {kind: getattr(self.site, kind)(request) for kind, request in self._requests().items()}
        self.enrolled = self.door.enrolled(self.honest["enrol"], site="site-b")
        self.agreed = self.door.agreed(self.honest["agree"], enrolled=self.enrolled, vocabulary=self.words)
        self.reach = reach(self.plan, round_number=1, epochs=1, patients=42, visits=90)

    def _requests(self):
        names = self.names
        weights = outgoing(self.sent, WEIGHT, wire=self.plan.training.wire)
        return {
            "enrol": EnrolRequest(plan=self.plan).pack(),
            "agree": AgreeRequest(plan_sha256=names["plan_sha256"], codes=CODES, patients=99, visits=180).pack(),
            "train": self.asked.pack({**weights, "coefficients": np.zeros((2, 2))}),
            "teach": TeachRequest(**names).pack({"weights": self.teacher}),
            "feedback": FeedbackRequest(**names).pack({"selected": np.array([0.5, 0.6])}),
            "audit": AuditRequest(**names).pack(),
        }

    def check(self, kind: str, reply: Envelope) -> object:
        """What the server makes of `reply`, which passes through Flower's records as on the way."""
        envelope = decode(encode(reply))
        if kind == "enrol":
            return self.door.enrolled(envelope, site="site-b")
        if kind == "agree":
            return self.door.agreed(envelope, enrolled=self.enrolled, vocabulary=self.words)
        if kind == "train":
            return self.door.trained(
                envelope, asked=self.asked, sent=self.sent, site=self.agreed, codes=len(self.words.codes)
            )
        if kind == "teach":
            return taught(envelope, plan=self.plan, site=self.agreed, asked=self.teacher)
        if kind == "feedback":
            return fed_back(envelope, plan=self.plan, site=self.agreed)
        return self.door.audited(envelope, site=self.agreed, codes=len(self.words.codes))


STUDY, NARROW, COUNTING = Study(), Study(wire="bfloat16"), Study(training=False)


# --- what is done to a reply -----------------------------------------------------------------------------------------


def text(change):
    """Changes the JSON text of the fields."""
    return lambda reply: Envelope(kind=reply.kind, fields=change(reply.fields), arrays=reply.arrays)


def fields(**changes):
    """Sets fields; a callable gets the old value."""

    def change(old):
        values = json.loads(old)
        for name, value in changes.items():
            values[name] = value(values[name]) if callable(value) else value
        return json.dumps(values)

    return text(change)


def raw(name, literal):
    """Sets a field to JSON text that Python's writer would not write."""

    def change(old):
        values = json.loads(old)
        assert name in values
        return json.dumps({**values, name: "@here@"}).replace('"@here@"', literal)

    return text(change)


def arrays(change):
    """Changes the dict of arrays."""
    return lambda reply: Envelope(kind=reply.kind, fields=reply.fields, arrays=change(dict(reply.arrays)))


def array(name, change):
    """Changes one array, the first whose name begins with `name`; None drops it."""

    def put(found):
        key = next(key for key in sorted(found) if key.startswith(name))
        value = change(found.pop(key).copy())
        return found if value is None else {**found, key: value}

    return arrays(put)


def all_of(prefix, change):
    """Changes every array under a prefix; `change` gets its name without prefix, and its values."""
    return arrays(
        lambda found: {
            name: change(name.removeprefix(prefix), value).astype(value.dtype) if name.startswith(prefix) else value
            for name, value in found.items()
        }
    )


def put(value, *where):
    def change(values):
        values[where or (0,) * values.ndim] = value
        return values

    return change


def scaled(factor):
    """The whole update, `factor` times as far."""
    return all_of(WEIGHT, lambda name, after: STUDY.sent[name] + factor * (after - STUDY.sent[name]))


def swapped(one, other):
    """Two arrays of the same shape, each under the other's name."""
    return arrays(lambda found: {**found, one: found[other], other: found[one]})


def twice(name):
    """The same key a second time, with another value."""
    return text(lambda old: old.replace("{", f'{{"{name}": {NUMBER}, ', 1))


def first_change(**changes):
    return fields(changes=lambda old: [{**old[0], **changes}, *old[1:]])


def moment(prefix, value):
    return all_of(prefix, lambda _, values: np.full_like(values, value))


LARGEST = 10 * STRIDE * STUDY.reach.unit
LAYER = "weight/blocks.0.attention_norm."

ANY = {  # of every kind of reply
    "a site outside the roster": fields(site=TEXT),
    "another site of the roster": fields(site="site-a"),
    "another plan": fields(plan_sha256="0" * 64),
    "a plan's hash as a number": fields(plan_sha256=NUMBER),
    "no site": text(lambda old: json.dumps({k: v for k, v in json.loads(old).items() if k != "site"})),
    "an unknown field": fields(**{TEXT: 1}),
    "a site named twice": text(lambda old: old.replace("{", '{"site": "site-b", ', 1)),
    "fields that are a list": text(lambda old: f"[{old}]"),
    "fields that are empty": text(lambda old: ""),
    "fields cut short": text(lambda old: old[:-3]),
    "fields with a second document": text(lambda old: f"{old} {old}"),
    "fields of great depth": text(lambda old: "[" * 100_000),
    "fields of a million values": text(lambda old: "[" + "0," * 1_100_000 + "0]"),
    "a text of 5,000 characters": fields(site=TEXT * 300),
    "an unknown array": arrays(lambda found: {**found, TEXT: np.zeros(3)}),
    "an unknown array with a long name": arrays(lambda found: {**found, TEXT * 20: np.zeros(3)}),
    "a kind that is another's": lambda reply: Envelope(kind=TEXT, fields=reply.fields, arrays=reply.arrays),
    "a kind of 100 characters": lambda reply: Envelope(kind="k" * 100, fields=reply.fields, arrays=reply.arrays),
}

ENROL = {
    "visits below 0": fields(visits=-NUMBER),
    "fewer visits than patients": fields(visits=41),
    "more visits than the plan allows a patient": fields(visits=NUMBER),
    "visits as a truth value": fields(visits=True),
    "visits as text": fields(visits="90"),
    "visits as a fraction": fields(visits=90.0),
    "visits that are not a number": raw("visits", "NaN"),
    "visits without end": raw("visits", "1e999"),
    "visits of a thousand digits": raw("visits", "7" * 1000),
    "visits told twice": twice("visits"),
    "no codes": fields(codes={}),
    "codes as a list": fields(codes=["DX//CCS//1"]),
    "a code of fewer patients than may be told": fields(codes={"DX//CCS//1": 3}),
    "a code of more patients than there are": fields(codes={"DX//CCS//1": NUMBER}),
    "a code counted by a truth value": fields(codes={"DX//CCS//1": True}),
    "a code without a name": fields(codes={"": 12}),
    "a code with a line end in its name": fields(codes={f"DX//{TEXT}\n": 12}),
    "a code with a name of 201 characters": fields(codes={"D" * 201: 12}),
    "200,000 codes": fields(codes={f"DX//{number}": 12 for number in range(200_000)}),
    "a code twice": raw("codes", '{"DX//CCS//1": 12, "DX//CCS//1": 13}'),
    "a flow of 65 steps": fields(flow={f"step {number}": 1 for number in range(65)}),
    "a flow of more than can be": fields(flow={"all": 1 << 50}),
    "a flow below 0": fields(flow={TEXT: -1}),
    "a flow step with a control code": fields(flow={"all\x1b[2J": 1}),
    "a hash that is none": fields(data_sha256=TEXT),
    "a hash in capitals": fields(data_sha256="A" * 64),
    "members below 0": array("members", put(-NUMBER)),
    "members of 2^62": array("members", put(1 << 62)),
    "members that wrap around to few": array(
        "members", lambda old: old + np.array([[1 << 63], [0]], dtype=np.uint64).astype(np.int64)
    ),
    "nobody": array("members", np.zeros_like),
    "members as floats": array("members", lambda old: old.astype(np.float64)),
    "members of one group": array("members", lambda old: old[:1]),
    "members as one number": array("members", lambda old: np.asarray(old.sum())),
    "members turned over": array("members", lambda old: np.stack([old, old])),
    "no members": array("members", lambda _: None),
}

AGREE = {
    "another vocabulary": fields(vocabulary_sha256="0" * 64),
    "a share above 1": fields(mapped_share=1.5),
    "a share below 0": fields(mapped_share=-0.1),
    "a share as a truth value": fields(mapped_share=True),
    "a share that is not a number": raw("mapped_share", "NaN"),
    "other training patients than enrolled": array("cohort", put(NUMBER)),
    "validation patients below 0": array("cohort", put(-1, 1, 0, 0)),
    "a cohort of two splits": array("cohort", lambda old: old[:2]),
    "a cohort as floats": array("cohort", lambda old: old.astype(np.float64)),
    "a code in more visits than there are": array("occurs", put(NUMBER)),
    "a token below 0": array("occurs", put(-1)),
    "other labels than enrolled": array("occurs", put(8, STUDY.words.layout.label)),
    "tokens of another vocabulary": array("occurs", lambda old: old[:-1]),
    "more visits with two codes than visits": array("shared", put(NUMBER)),
}

TRAIN = {
    "a weight that is not a number": array(WEIGHT, put(np.nan)),
    "an infinite weight": array(WEIGHT, put(np.inf)),
    "a weight of minus infinity": array(WEIGHT, put(-np.inf)),
    "a weight of 1e15": array(WEIGHT, put(1e15)),
    "a weight of 1e38": array(WEIGHT, put(3e38)),
    "one weight ten times as far as Adam can go": array(WEIGHT, lambda old: put(old.flat[0] + LARGEST)(old)),
    "an update a thousand times as far": scaled(1000),
    "an update turned round and fifty times as far": scaled(-50),
    "all weights 0": all_of(WEIGHT, lambda _, after: np.zeros_like(after)),
    "the weights that were sent": all_of(WEIGHT, lambda name, _: STUDY.sent[name]),
    "the weights that were sent, with another output bias": all_of(
        WEIGHT, lambda name, after: after if name == BIAS else STUDY.sent[name]
    ),
    "a model of other random weights": all_of(
        WEIGHT, lambda name, after: np.random.default_rng(5).normal(0, 0.3, after.shape)
    ),
    "weights in another order": all_of(WEIGHT, lambda _, after: after.ravel()[::-1].reshape(after.shape)),
    "two layers exchanged": swapped(f"{LAYER}weight", f"{LAYER}bias"),
    "a number for a matrix": array(WEIGHT, lambda _: np.array(1, dtype=np.float32)),
    "an empty array": array(WEIGHT, lambda old: old[:0]),
    "a matrix on its side": array("weight/embedding", np.transpose),
    "an axis too many": array(WEIGHT, lambda old: old[None]),
    "weights in 64 bits": array(WEIGHT, lambda old: old.astype(np.float64)),
    "weights as integers": array(WEIGHT, lambda old: old.astype(np.int64)),
    "weights in 16 bits": array(WEIGHT, narrow),
    "a missing weight": array(WEIGHT, lambda _: None),
    "no weights at all": arrays(lambda old: {n: a for n, a in old.items() if not n.startswith(WEIGHT)}),
    "a weight of a layer that is none": arrays(lambda old: {**old, "weight/blocks.7.norm": np.zeros(8, np.float32)}),
    "a first moment that is not a number": array(FIRST, put(np.nan)),
    "first moments above clipped gradients": moment(FIRST, 0.5),
    "first moments that the second ones forbid": moment(FIRST, 1e-2),
    "a second moment below 0": array(SECOND, put(-1e-9)),
    "second moments above clipped gradients": moment(SECOND, 0.5),
    "an infinite second moment": array(SECOND, put(np.inf)),
    "no second moments": arrays(lambda old: {n: a for n, a in old.items() if not n.startswith(SECOND)}),
    "a patient more than enrolled": fields(patients=43),
    "10^15 patients": fields(patients=10**15),
    "no patients": fields(patients=0),
    "patients below 0": fields(patients=-50),
    "patients as a truth value": fields(patients=True),
    "patients as a fraction": fields(patients=42.0),
    "patients as text": fields(patients="42"),
    "patients told twice": twice("patients"),
    "another arm": fields(arm="fairsynth"),
    "an arm that is none": fields(arm=TEXT),
    "the round before": fields(round=0),
    "a round to come": fields(round=2),
    "a round below 0": fields(round=-1),
    "a loss that is not a number": raw("nll_train", "NaN"),
    "a loss without end": raw("nll_validation", "Infinity"),
    "a loss below 0": fields(nll_train=-1.0),
    "a loss of 1e300": fields(nll_train=1e300),
    "a loss as text": fields(nll_train="500"),
    "more visits than enrolled": fields(cells_train=NUMBER),
    "fewer visits than patients": fields(cells_train=1),
    "validation visits of nobody": fields(cells_validation=0),
    "more validation visits than the plan allows": fields(cells_validation=NUMBER),
    "a coefficient at its bound in the plain arm": fields(bounded=True),
    "a bound as a number": fields(bounded=0),
    "TP above P": array("soft", put(49.0, 0, 3)),
    "TP above S": array("hard", put(0, 0, 2)),
    "a negative count": array("soft", put(-NUMBER, 0, 3)),
    "another N than enrolled": array("soft", put(9, 1, 0)),
    "P that differs between soft and hard": array("hard", put(31, 0, 1)),
    "P as a fraction": arrays(lambda old: {**old, **{n: old[n] + [0, 0.5, 0, 0] for n in ("soft", "hard")}}),
    "a fraction among hard counts": array("hard", put(20.5, 0, 2)),
    "S above visits x codes": array("soft", put(1e9, 0, 2)),
    "S that overflows": array("soft", lambda old: put(1.7e308, 1, 2)(put(1.7e308, 0, 2)(old))),
    "a count that is not a number": array("soft", put(np.nan)),
    "an infinite count": array("hard", put(np.inf, 0, 2)),
    "counts as integers": array("soft", lambda old: old.astype(np.int64)),
    "counts of one group": array("soft", lambda old: old[:1]),
    "groups exchanged": arrays(lambda old: {**old, **{n: old[n][::-1] for n in ("soft", "hard")}}),
    "no counts": array("hard", lambda _: None),
}

TRAIN_NARROW = {
    "changes in 32 bits": array(CHANGE, lambda bits: np.zeros(bits.shape, np.float32)),
    "weights instead of changes": arrays(lambda old: {n.replace(CHANGE, WEIGHT): a for n, a in old.items()}),
    "a change that is not a number": array(CHANGE, put(0x7FC0)),
    "an infinite change": array(CHANGE, put(0x7F80)),
    "a change of 1e30": array(CHANGE, put(narrow(np.float32(1e30)))),
    "no change at all": all_of(CHANGE, lambda _, bits: np.zeros_like(bits)),
    "a negative second moment in 16 bits": array(SECOND, put(0x8000 | 0x3C00)),
}

TRAIN_COUNTING = {
    "weights where none were asked for": arrays(
        lambda old: {**old, **{f"{WEIGHT}{name}": value for name, value in STUDY.sent.items()}}
    ),
    "moments where none were asked for": arrays(
        lambda old: {**old, **{f"{FIRST}{name}": value for name, value in STUDY.sent.items()}}
    ),
}

TEACH = {
    "a loss that is not a number": raw("loss", "NaN"),
    "a loss below 0": fields(validation=-1.0),
    "a loss of more patients": fields(loss=1e6),
    "a gradient above the patients": array("gradient", put(float(NUMBER))),
    "a gradient without end": array("gradient", put(np.inf)),
    "a gradient in 32 bits": array("gradient", lambda old: old.astype(np.float32)),
    "a gradient of fewer tokens": array("gradient", lambda old: old[1:]),
    "a Hessian above a quarter a patient": array("hessian", put(11.0)),
    "a Hessian that curves down": array("hessian", put(-1.0)),
    "a Hessian of 1e300": array("hessian", put(1e300)),
    "a Hessian that is not a number": array("hessian", put(np.nan)),
    "a whole Hessian": array("hessian", lambda _: np.zeros((SIZE, SIZE))),
}
SIZE = len(STUDY.teacher)

FEEDBACK = {
    "a validation patient too many": array("validation", put(NUMBER)),
    "a seen patient too many": array("seen", put(NUMBER)),
    "counts below 0 that add up": array("validation", lambda old: old + np.array([[-9, 0, 9, 0], [0, 0, 0, 0]])),
    "counts as floats": array("seen", lambda old: old.astype(np.float64)),
    "counts of one group": array("seen", lambda old: old[:1]),
    "counts that wrap around": array("validation", lambda old: old + np.array([[1 << 62, 0, 1 << 62, 0]] * 2) * 2),
}

AUDIT = {
    "other approaches": fields(approaches=lambda old: old[::-1]),
    "other predictors": fields(predictors=[TEXT]),
    "other seeds": fields(seeds=7),
    "seeds as a truth value": fields(seeds=True),
    "no change told": fields(changes=[]),
    "a change twice": fields(changes=lambda old: [*old, old[0]]),
    "a change of another predictor": first_change(predictor=TEXT),
    "a change of no seed": first_change(f1={"mean": 0.1, "low": 0.0, "high": 0.2, "seeds": 0}),
    "limits without a mean": first_change(f1={"mean": None, "low": 0.0, "high": 0.2, "seeds": 2}),
    "limits that are exchanged": first_change(f1={"mean": 0.1, "low": 0.2, "high": 0.0, "seeds": 2}),
    "a mean that the counts do not have": first_change(f1={"mean": 0.9, "low": 0.8, "high": 1.0, "seeds": 2}),
    "confusion of other patients": array("confusion", put(NUMBER)),
    "confusion below 0": array("confusion", put(-1)),
    "confusion that wraps around": array("confusion", put((1 << 63) - 1)),
    "confusion of fewer predictors": array("confusion", lambda old: old[:, :0]),
    "scores of too few patients": array("scores", put(1)),
    "scores of other patients": array("alone", put(NUMBER)),
    "synthetic patients below 0": array("synthetic", put(-1, 1, 0, 0)),
    "synthetic patients beside real ones alone": array("synthetic", put(5)),
    "synthetic patients as floats": array("synthetic", lambda old: old.astype(np.float64)),
    "more visits with a code than visits": array("code_visits", put(91)),
    "visits of other training patients": array("code_totals", put(NUMBER)),
    "held-out visits of nobody": array("code_totals", put(0, 1)),
    "no totals": array("code_totals", lambda _: None),
}

KINDS = {
    "enrol": (STUDY, "enrol", ENROL),
    "agree": (STUDY, "agree", AGREE),
    "train": (STUDY, "train", TRAIN),
    "train in 16 bits": (NARROW, "train", TRAIN_NARROW),
    "train without epochs": (COUNTING, "train", TRAIN_COUNTING),
    "teach": (STUDY, "teach", TEACH),
    "feedback": (STUDY, "feedback", FEEDBACK),
    "audit": (STUDY, "audit", AUDIT),
}

CASES = {
    f"{label}: {name}": (study, kind, change)
    for label, (study, kind, own) in KINDS.items()
    for name, change in {**(ANY if study is STUDY else {}), **own}.items()
}
