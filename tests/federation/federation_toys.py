"""A federation small enough to read: toy sites behind an in-process transport, no files, no Flower processes.

A toy site trains by a formula, so that what the server should make of its replies is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fairsynth.config import (
    AuditConfig,
    AugmentationConfig,
    GeneratorConfig,
    GroupsConfig,
    ObjectiveConfig,
    PrivacyConfig,
    SplitConfig,
    StudyPlan,
    TaskConfig,
    TrainingConfig,
    VocabularyConfig,
)
from fairsynth.fairness.verdict import UNKNOWN, Bounds, SiteChange
from fairsynth.federation.flower import decode, encode
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    AgreeReply,
    AgreeRequest,
    AuditReply,
    AuditRequest,
    EnrolReply,
    EnrolRequest,
    Envelope,
    FeedbackReply,
    FeedbackRequest,
    TeachReply,
    TeachRequest,
    TrainReply,
    TrainRequest,
)
from fairsynth.federation.newton import log_loss, sums_of, triangle
from fairsynth.federation.plans import APPROACHES, SCORE_BINS, THRESHOLDS, learning_rate, plan_sha256
from fairsynth.federation.wire import answer, incoming, outgoing
from fairsynth.generator.priming import runs
from fairsynth.seeds import numpy_stream
from fairsynth.visits.cohort import shared_vocabulary

GROUPS = ("white", "black")
PLAIN = PrivacyConfig(profile="plain", agreement="toys")
CODES = {"DX//CCS//1": 12, "DX//CCS//2": 30, "RX//aspirin": 15}

Poison = Callable[[str, Envelope], Envelope | None]


def toy_plan(**changes) -> StudyPlan:
    """Two sites, two groups, two rounds."""
    values = {
        "name": "toy",
        "seed": 7,
        "roster": ("site-a", "site-b"),
        "quorum": 2,
        "task": TaskConfig(),
        "split": SplitConfig(),
        "groups": GroupsConfig(names=GROUPS, reference=("white",)),
        "vocabulary": VocabularyConfig(),
        "objective": ObjectiveConfig(),
        "generator": GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=4),
        "training": TrainingConfig(rounds=2, local_epochs=1, round_deadline_seconds=1),
        "augmentation": AugmentationConfig(synthetic_patients=10),
        "audit": AuditConfig(predictors=("logistic_regression",), seeds=2, minimum_positives=1),
        "privacy": PLAIN,
        **changes,
    }
    return StudyPlan(**values)


@dataclass
class ToySite:
    """Answers every request as a site would, by formulas; `poison` may change or drop a reply."""

    name: str
    members: list[list[int]]
    plan: StudyPlan
    codes: Mapping[str, int] = field(default_factory=lambda: dict(CODES))
    visits: int = 90
    together: int = 0  # visits with two codes of a run
    poison: Poison = lambda kind, envelope: envelope
    asked: list[Envelope] = field(default_factory=list)

    def __call__(self, request: Envelope) -> Envelope | None:
        self.asked.append(request)
        answers = {
            "enrol": self.enrol,
            "agree": self.agree,
            "train": self.train,
            "teach": self.teach,
            "feedback": self.feedback,
            "audit": self.audit,
        }
        return self.poison(request.kind, answers[request.kind](request))

    @property
    def identity(self):
        return {"site": self.name, "plan_sha256": plan_sha256(self.plan)}

    @property
    def cohort(self):
        more = [[2, 0]] * (len(self.members) - 2)
        return np.array([self.members, [[3, 1], [2, 1], *more], [[4, 2], [3, 1], *more]], dtype=np.int64)

    def enrol(self, request: Envelope) -> Envelope:
        EnrolRequest.unpack(request)
        reply = EnrolReply(
            **self.identity, data_sha256="a" * 64, codes=self.codes, visits=self.visits, flow={"all": 99}
        )
        return reply.pack({"members": self.cohort[0]})

    def agree(self, request: Envelope) -> Envelope:
        vocabulary = shared_vocabulary(AgreeRequest.unpack(request).codes, plan=self.plan)
        reply = AgreeReply(**self.identity, vocabulary_sha256=vocabulary.sha256, mapped_share=1.0)
        arrays = {"cohort": self.cohort}
        if self.plan.training.primed:
            layout, patients = vocabulary.layout, int(self.cohort[0].sum())
            occurs = np.zeros(layout.size, dtype=np.int64)
            occurs[layout.codes] = self.visits // 3
            occurs[layout.groups], occurs[layout.label] = self.cohort[0].sum(axis=1), self.cohort[0, :, 1].sum()
            occurs[layout.sexes.start], occurs[layout.ages.start] = patients // 2, patients
            arrays |= {"occurs": occurs, "shared": np.full(len(runs(vocabulary)), self.together, dtype=np.int64)}
        return reply.pack(arrays)

    def train(self, request: Envelope) -> Envelope:
        body = TrainRequest.unpack(request)
        wire = self.plan.training.wire
        weights = incoming(request.arrays, WEIGHT, wire=wire)
        after = {}
        if body.epochs:
            draw = numpy_stream(1, self.name, body.round)
            rate = learning_rate(self.plan, round_number=body.round)  # as far as a step of training moves a weight
            pull = min(float(np.abs(request.arrays["coefficients"]).sum()), 1.0) * rate
            moved = {name: array + rate * draw.normal(size=array.shape) + pull for name, array in weights.items()}
            first = {name: 1e-4 * draw.uniform(-1, 1, size=array.shape) for name, array in weights.items()}
            after = {
                **answer(moved, received=weights, wire=wire),
                **outgoing(first, FIRST, wire=wire),
                **outgoing({name: np.square(array) for name, array in first.items()}, SECOND, wire=wire),
            }
        level = 1 / (1 + np.exp(-float(np.mean([array.mean() for array in weights.values()]))))
        number = self.cohort[0].sum(axis=1).astype(float)
        positives = 2 * number
        rate = 3 * level * np.linspace(1, 0.8, len(number))  # the groups differ: coefficients are not 0
        soft = np.stack([number, positives, rate * number, level * number], axis=1)
        hard = np.stack([number, positives, number, number], axis=1)
        reply = TrainReply(
            **self.identity,
            arm=body.arm,
            round=body.round,
            patients=int(number.sum()),
            nll_train=500.0,
            nll_validation=40.0,
            cells_train=int(number.sum()) + self.visits,
            cells_validation=20,
            bounded=False,
        )
        return reply.pack({**after, "soft": soft, "hard": hard})

    def patients(self, split: int, size: int):
        """Rows (n, size) of zeros and ones and labels (n,) of a split: positives have the first five tokens more often.

        The groups' tokens are not among them.
        """
        label = np.repeat([0, 1], self.cohort[split].sum(axis=0))
        chance = np.full((len(label), size), 0.2)
        chance[label == 1, :5] = 0.6
        return (numpy_stream(1, self.name, split).random(chance.shape) < chance).astype(float), label

    def teach(self, request: Envelope) -> Envelope:
        TeachRequest.unpack(request)
        weights = request.arrays["weights"]
        sums = sums_of(*self.patients(0, len(weights) - 1), weights)
        nats = log_loss(*self.patients(1, len(weights) - 1), weights)
        reply = TeachReply(**self.identity, loss=sums.loss, validation=nats)
        return reply.pack({"gradient": sums.gradient, "hessian": triangle(sums.hessian)})

    def feedback(self, request: Envelope) -> Envelope:
        """A share of a group that lies above the cut is the share of it that is predicted positive."""
        FeedbackRequest.unpack(request)
        counts = {}
        for name, cells in (("validation", self.cohort[1]), ("seen", self.cohort[:2].sum(axis=0))):
            above = np.floor(cells * request.arrays["selected"][:, None]).astype(np.int64)
            counts[name] = np.stack([above[:, 1], above[:, 0], (cells - above)[:, 1], (cells - above)[:, 0]], axis=1)
        return FeedbackReply(**self.identity).pack(counts)

    def audit(self, request: Envelope) -> Envelope:
        AuditRequest.unpack(request)
        held_out = self.cohort[2]
        shape, groups = (len(APPROACHES), len(self.plan.audit.predictors), self.plan.audit.seeds), len(held_out)
        found = np.eye(1, groups, dtype=np.int64)[0]  # real patients alone: one white patient is found
        confusion = np.zeros((*shape, len(THRESHOLDS), groups, 4), dtype=np.int64)
        confusion[..., 0], confusion[..., 3] = held_out[:, 1], held_out[:, 0]
        confusion[0, ..., 0] = found
        confusion[0, ..., 2] = held_out[:, 1] - found
        scores = np.zeros((*shape, groups, 2, SCORE_BINS), dtype=np.int64)
        scores[..., 100] = held_out
        codes = len(self.codes)
        arrays = {
            "confusion": confusion,
            "scores": scores,
            "synthetic": np.zeros((len(APPROACHES), groups, 2), dtype=np.int64),
            "code_visits": np.ones((3, codes), dtype=np.int64),
            "code_totals": np.array([self.visits, 30, 50], dtype=np.int64),
            "alone": scores[:2, 0, 0],
        }
        reply = AuditReply(
            **self.identity,
            approaches=APPROACHES,
            predictors=self.plan.audit.predictors,
            thresholds=THRESHOLDS,
            seeds=self.plan.audit.seeds,
            changes=toy_changes(self.plan, confusion),
        )
        return reply.pack(arrays)


def toy_changes(plan: StudyPlan, confusion: np.ndarray) -> tuple[SiteChange, ...]:
    """The site's own word on its counts; |log DI| is infinite with real patients alone, so nobody knows its change."""
    first, last = confusion[0, 0, 0, 0], confusion[-1, 0, 0, 0]  # (G, 4), the same for all seeds and thresholds
    fair = (last[:, 0] + last[:, 2]).min() >= plan.audit.minimum_positives

    def f1(counts):
        tp, fp, fn, _ = counts.sum(axis=0)
        return 2 * tp / (2 * tp + fp + fn)

    def worst(counts):
        return min(tp / (tp + fn) for tp, _, fn, _ in counts)

    def around(mean):
        return Bounds(mean=mean, low=mean - 0.02, high=mean + 0.02, seeds=plan.audit.seeds)

    return tuple(
        SiteChange(
            predictor=predictor,
            threshold=threshold,
            gain=around(worst(last) - worst(first)) if fair else UNKNOWN,
            f1=around(f1(last) - f1(first)),
            abs_log_di=UNKNOWN,
        )
        for predictor in plan.audit.predictors
        for threshold in THRESHOLDS
    )


@dataclass
class InProcess:
    """A transport without a network: every message still passes through Flower's records."""

    sites: Mapping[str, Callable[[Envelope], Envelope | None]]
    backwards: bool = False  # replies arrive in the other order

    def ask(self, requests, *, timeout):
        for name in sorted(requests, reverse=self.backwards):
            reply = self.sites[name](decode(encode(requests[name])))
            if reply is not None:
                yield name, decode(encode(reply))


def toy_sites(plan: StudyPlan, **poison: Poison) -> dict[str, ToySite]:
    """`site-a` is larger than `site-b`; `poison` maps a site's letter to what is done to its replies."""
    rows = {"a": [[40, 5], [10, 2]], "b": [[20, 4], [15, 3]], "c": [[22, 2], [12, 1]]}
    letters = [site.removeprefix("site-") for site in plan.roster]
    keep: Poison = lambda kind, envelope: envelope  # noqa: E731
    return {
        f"site-{letter}": ToySite(f"site-{letter}", rows[letter], plan, poison=poison.get(letter, keep))
        for letter in letters
    }
