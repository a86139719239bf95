"""Honest replies to train requests, by real training: hospitals of many sizes, plans of many settings, in memory.

Each federation has two or three simulated sites, trains for some rounds as `federation.rounds` and `federation.site`
do (the same functions, without files and Flower), and gives every reply with all that the server's door asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairsynth.config import (
    GeneratorConfig,
    GroupsConfig,
    ObjectiveConfig,
    PrivacyConfig,
    SiteEntry,
    StudyConfig,
    StudyPlan,
    TrainingConfig,
)
from fairsynth.errors import CohortError, ProtocolError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.federation.aggregate import average, pool
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    AgreeReply,
    EnrolReply,
    Envelope,
    TrainReply,
    TrainRequest,
)
from fairsynth.federation.norms import Norms
from fairsynth.federation.plans import ARMS, FAIRSYNTH, learning_rate, plan_sha256, reference_mask
from fairsynth.federation.validation import Agreed, Door, Enrolled
from fairsynth.federation.wire import answer, incoming, outgoing
from fairsynth.generator.base_rates import at_home, base_rates, to_share
from fairsynth.generator.model import initial_weights
from fairsynth.generator.train import Moments, Study, Totals, measure, train
from fairsynth.schemas import Arrays, FloatArray, SiteId
from fairsynth.seeds import numpy_stream, stream
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

GROUPS = ("white", "black", "other")
SHARES = (0.6, 0.3, 0.1)
MAXIMUM_VISITS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Honest:
    """One honest reply, and what the door needs to judge it."""

    door: Door
    envelope: Envelope
    asked: TrainRequest
    sent: Arrays
    site: Agreed
    codes: int

    def check(self) -> None:
        """Raises ProtocolError when the door refuses it."""
        self.door.trained(self.envelope, asked=self.asked, sent=self.sent, site=self.site, codes=self.codes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Hospital:
    """A simulated site."""

    name: SiteId
    records: Records
    rates: FloatArray
    agreed: Agreed


def federations(number: int, *, seed: int) -> Iterator[StudyPlan]:
    """Plans whose settings are drawn anew for each, within what studies use."""
    for index in range(number):
        draw = numpy_stream(seed, "plan", index)
        training = TrainingConfig(
            rounds=int(draw.integers(1, 4)),
            local_epochs=int(draw.choice([1, 1, 1, 2, 5])),
            batch_size=int(draw.choice([4, 16, 32, 64])),
            learning_rate=float(10 ** draw.uniform(-4, -1)),
            weight_decay=float(draw.choice([0.0, 0.0, 0.01, 0.5])),
            wire=str(draw.choice(["float32", "bfloat16"])),
        )
        yield StudyConfig(
            schema="fairsynth.study/1",
            name="honest",
            seed=index,
            sites=tuple(SiteEntry(site=f"site-{i}", config="a", data="a") for i in range(int(draw.integers(2, 4)))),
            groups=GroupsConfig(names=GROUPS, reference=GROUPS[:1]),
            privacy=PrivacyConfig(profile="plain", agreement="simulated patients"),
            generator=GeneratorConfig(embedding=8, layers=1, heads=2, maximum_visits=MAXIMUM_VISITS),
            objective=ObjectiveConfig(
                target=str(draw.choice(["codes", "label"])), weight=float(draw.choice([0.0, 1.2, 5.0]))
            ),
            training=training,
        ).plan()


def replies(plan: StudyPlan, *, arms: tuple[str, ...] = ARMS) -> Iterator[Honest]:
    """Every reply of every round of both arms, the last requests without training included."""
    draw = numpy_stream(plan.seed, "hospitals")
    words = Vocabulary(
        codes=tuple(f"DX//{i:03}" for i in range(int(draw.integers(5, 60)))),
        groups=GROUPS,
        ages=("young", "old"),
        phenotypes=("p", "q"),
    )
    sites = [hospital(name, plan=plan, words=words) for name in plan.roster]
    initial = initial_weights(words, plan.generator, seed=stream(plan.seed, "initial-weights"))
    for arm in arms:
        # Where a group is empty there is nobody to compare, and where a reply is refused no quorum: the arm ends there.
        with suppress(CohortError, ProtocolError):
            yield from _arm(arm, initial, plan=plan, words=words, sites=sites)


def hospital(name: SiteId, *, plan: StudyPlan, words: Vocabulary) -> Hospital:
    """A site of 3 to some 200 training patients, most of fewer than 40, and what it said at enrolment."""
    draw = numpy_stream(plan.seed, "hospital", name)
    small, large = draw.uniform(0.5, 1.6), draw.uniform(1.6, 2.3)
    records = patients(int(10 ** (small if draw.random() < 0.85 else large)), words=words, draw=draw)
    members = np.zeros((len(GROUPS), 2), dtype=np.int64)
    np.add.at(members, (records.group, records.label), 1)
    names = {"site": name, "plan_sha256": plan_sha256(plan)}
    told = EnrolReply(**names, data_sha256="a" * 64, codes={}, visits=records.visits, flow={})
    agreed = Agreed(
        enrolled=Enrolled(reply=told, members=members),
        reply=AgreeReply(**names, vocabulary_sha256=words.sha256, mapped_share=1.0),
        cohort=np.stack([members, members, members]),
    )
    return Hospital(name=name, records=records, rates=base_rates(records, vocabulary=words), agreed=agreed)


def patients(number: int, *, words: Vocabulary, draw: np.random.Generator) -> Records:
    """Patients with rare and frequent codes, a label that goes with them, and one to six visits."""
    layout = words.layout
    rates = draw.choice([0.005, 0.05, 0.3, 0.8], p=[0.4, 0.3, 0.2, 0.1], size=len(words.codes))
    group = draw.choice(len(GROUPS), p=SHARES, size=number).astype(np.int64)
    label = (draw.random(number) < 0.2).astype(np.int64)
    visits = np.minimum(1 + draw.poisson(0.8, size=number), MAXIMUM_VISITS)
    rows = draw.random((int(visits.sum()), len(words.codes))) < rates
    context = [
        [layout.groups.start + g, *([layout.label] if y else []), layout.sexes.start + s, layout.ages.start + a]
        for g, y, s, a in zip(group, label, draw.integers(2, size=number), draw.integers(2, size=number), strict=True)
    ]
    return Records(
        codes=np.nonzero(rows)[1].astype(np.int64),
        visit_offsets=_offsets(rows.sum(axis=1)),
        patient_offsets=_offsets(visits),
        context=np.concatenate(context).astype(np.int64),
        context_offsets=_offsets(np.array([len(one) for one in context])),
        group=group,
        label=label,
    )


def _offsets(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _arm(arm: str, weights: Arrays, *, plan: StudyPlan, words: Vocabulary, sites: list[Hospital]) -> Iterator[Honest]:
    door, moments = Door(plan=plan, norms=Norms()), None
    slopes = np.zeros((len(GROUPS), 2))
    n = sum(len(site.records) for site in sites)
    totals = Totals(patients=n, positions=(sum(site.records.visits for site in sites) + n) / n)
    for number in range(plan.training.rounds + 1):
        epochs = plan.training.local_epochs if number < plan.training.rounds else 0
        asked = TrainRequest(
            plan_sha256=plan_sha256(plan), vocabulary_sha256=words.sha256, arm=arm, round=number, epochs=epochs
        )
        study = Study(
            vocabulary=words,
            plan=plan,
            totals=totals,
            learning_rate=learning_rate(plan, round_number=number),
            moments=_travelled(moments, plan=plan) if epochs else None,
        )
        found = []
        for site in sites:
            envelope = _reply(site, weights, study=study, asked=asked, slopes=slopes)
            one = Honest(
                door=door, envelope=envelope, asked=asked, sent=weights, site=site.agreed, codes=len(words.codes)
            )
            yield one
            found.append(door.trained(envelope, asked=asked, sent=weights, site=site.agreed, codes=one.codes))
        if epochs:
            sizes = {site.name: len(site.records) for site in sites}
            weights = average({site.name: one.weights for site, one in zip(sites, found, strict=True)}, patients=sizes)
            first, second = (
                average({s.name: getattr(one.moments, of) for s, one in zip(sites, found, strict=True)}, patients=sizes)
                for of in ("first", "second")
            )
            moments = Moments(first=first, second=second)
        if arm == FAIRSYNTH:
            counts = pool({site.name: one.soft for site, one in zip(sites, found, strict=True)})
            slopes = coefficients(plan.objective, counts, reference=reference_mask(plan)).values


def _travelled(moments: Moments | None, *, plan: StudyPlan) -> Moments | None:
    """As a site receives them."""
    if moments is None:
        return None
    wire = plan.training.wire
    first, second = (
        incoming(outgoing(getattr(moments, of), prefix, wire=wire), prefix, wire=wire)
        for of, prefix in (("first", FIRST), ("second", SECOND))
    )
    return Moments(first=first, second=second)


def _reply(site: Hospital, weights: Arrays, *, study: Study, asked: TrainRequest, slopes: FloatArray) -> Envelope:
    """What `federation.site.train` answers."""
    plan, wire = study.plan, study.plan.training.wire
    received = incoming(outgoing(weights, WEIGHT, wire=wire), WEIGHT, wire=wire)
    home = at_home(received, site.rates)
    before = measure(home, records=site.records, study=study)
    arrays: Arrays = {"soft": before.soft, "hard": before.hard}
    bounded = False
    if asked.epochs:
        trained = train(
            home,
            records=site.records,
            study=study,
            coefficients=slopes if asked.arm == FAIRSYNTH else None,
            epochs=asked.epochs,
            seed=stream(plan.seed, "train", site.name, asked.round),
        )
        bounded = trained.bounded
        arrays |= answer(to_share(trained.weights, site.rates), received=received, wire=wire)
        arrays |= outgoing(trained.moments.first, FIRST, wire=wire)
        arrays |= outgoing(trained.moments.second, SECOND, wire=wire)
    reply = TrainReply(
        site=site.name,
        plan_sha256=asked.plan_sha256,
        arm=asked.arm,
        round=asked.round,
        patients=len(site.records),
        nll_train=before.nll,
        nll_validation=before.nll,
        cells_train=before.cells,
        cells_validation=before.cells,
        bounded=bounded,
    )
    return reply.pack(arrays)
