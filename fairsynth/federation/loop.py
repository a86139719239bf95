"""The server's loop: enrol -> agree -> train both arms -> perhaps teach, feedback -> audit.

In:  a conversation, the desk.   Out: the server's folder: `plan.json`, `journal.jsonl`, `enrolment.json`, `rounds/`,
`generator-plain/`, `generator-fairsynth/`, `terms/` where there are any, `audit/`.
Never: flwr, a patient's record, an unchecked reply.

Both arms start from the same weights and use the same seeds at the sites; they differ in the coefficients alone, so
lambda = 0 gives two equal models. Statistics ride on the training reply: reply r holds the counts of the model that
the site received in round r, so the coefficients of round r are those of the counts of round r - 1. Round 0 of the
fairsynth arm takes the counts of round 0 of the plain arm, whose model is the same initial one. One request without
training after the last round gives the final model's counts and losses.

Each round is committed before the next. A server that starts again takes the same way: replies before and after
training are those that it kept, an arm goes on from its last committed round, and the journal is compared to what it
had told (docs/resume.md).
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fairsynth import artefacts
from fairsynth.config import StudyPlan
from fairsynth.errors import CohortError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.damping import Steering, steer
from fairsynth.federation.aggregate import average_of, pool, weights_sha256
from fairsynth.federation.agreement import Members, agree, enrol
from fairsynth.federation.conversation import Conversation
from fairsynth.federation.course import Course, Model
from fairsynth.federation.desk import Desk
from fairsynth.federation.journal import Event, Journal
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    AuditReply,
    AuditRequest,
    Envelope,
    TrainRequest,
    weights_as,
)
from fairsynth.federation.norms import Norms
from fairsynth.federation.planning import plan_guide
from fairsynth.federation.plans import ARMS, FAIRSYNTH, is_taught, plan_sha256, reference_mask
from fairsynth.federation.server_folder import FINISHED, ROUND, STUDY
from fairsynth.federation.spool import Spool
from fairsynth.federation.teaching import teach
from fairsynth.federation.terms import Guide, Terms, save_terms
from fairsynth.federation.validation import Door, TrainedReply
from fairsynth.federation.wire import outgoing
from fairsynth.generator.checkpoint import load, save
from fairsynth.generator.train import Moments
from fairsynth.schemas import Arrays, FloatArray, SiteId


@dataclass(frozen=True, kw_only=True)
class Server:
    """The loop of one study."""

    conversation: Conversation
    desk: Desk
    norms: Norms = field(default_factory=Norms)

    @property
    def plan(self) -> StudyPlan:
        """What the sites agreed on."""
        return self.desk.plan

    @property
    def root(self) -> Path:
        """The server's folder."""
        return self.desk.root

    @property
    def journal(self) -> Journal:
        """What is told of the study."""
        return self.desk.journal

    @property
    def door(self) -> Door:
        """What every reply is checked by."""
        return Door(plan=self.plan, norms=self.norms)

    def run(self) -> None:
        """All phases, in order."""
        self.announce()
        enrolled = enrol(self.conversation, door=self.door)
        members = agree(self.conversation, enrolled, door=self.door, root=self.root)
        initial = members.first_weights(self.plan)
        weights: dict[str, Arrays] = {}
        counts: FloatArray | None = None
        for arm in ARMS:
            model = Model(arm=arm, weights=initial, counts=counts)
            weights[arm], counts = self.train(model, members)
            self.keep(arm, weights[arm], members)
        self.audit(weights, members, guide=self.guide(weights[FAIRSYNTH], members))
        self.journal.append(FINISHED)
        self.desk.close()

    def announce(self) -> None:
        """Tell which study begins."""
        self.journal.append(STUDY, **_study_event(self.plan))

    # --- train

    def train(self, model: Model, members: Members) -> tuple[Arrays, FloatArray]:
        """All rounds of one arm: its final weights, and the pooled counts (G, 4) of the model that it began with."""
        course = self.begun(Course(model=model))
        while course.done < self.rounds(model.arm):
            course = self.advance(course, members)
        first = course.first if course.first is not None else np.zeros((len(self.plan.groups.names), 4))
        return course.model.weights, first

    def rounds(self, arm: str) -> int:
        """The requests of an arm: the plan's rounds, and one without training."""
        return self.plan.training.rounds + 1

    def begun(self, course: Course) -> Course:
        """`course`, or what was committed of its arm. Raises ArtefactError when a trained arm's weights are gone."""
        arm = course.model.arm
        found = self.desk.latest(arm)
        later = [one for one in self.desk.committed if ARMS.index(one.course.model.arm) > ARMS.index(arm)]
        if later and (found is None or found.course.done < self.rounds(arm)):  # its last round is spoilt
            weights = load(self.root / f"generator-{arm}", kind=f"generator-{arm}").weights
            model = replace(course.model, weights={name: weights[name] for name in course.model.weights})
            self.journal.pass_to(later[0].position - 1)
            return Course(model=model, done=self.rounds(arm))
        if found is None:
            return course
        self.norms.restore(found.norms)
        self.journal.pass_to(found.position)
        return found.course

    def advance(self, course: Course, members: Members) -> Course:
        """One round more, committed."""
        epochs = self.plan.training.local_epochs if course.done < self.plan.training.rounds else 0
        model, line = self.round(course.model, members, number=course.done, epochs=epochs)
        self.journal.expect(ROUND, **line)
        first = model.counts if course.first is None else course.first
        moved = Course(model=model, done=course.done + 1, first=first)
        self.desk.commits.save(
            moved,
            norms=self.norms.told,
            event={"event": ROUND, **line},
            position=self.journal.position + 1,
            journal=self.journal.path,
        )
        self.journal.append(ROUND, **line)
        return moved

    def round(self, model: Model, members: Members, *, number: int, epochs: int) -> tuple[Model, Event]:
        """One request to every site, train `epochs` from `model` and count what it predicts; and what is told of it."""
        started = time.monotonic()
        steering = self.steer(model) if epochs else None
        values = steering.coefficients if steering else np.zeros((len(self.plan.groups.names), 2))
        asked = TrainRequest(
            plan_sha256=plan_sha256(self.plan),
            vocabulary_sha256=members.vocabulary.sha256,
            arm=model.arm,
            round=number,
            epochs=epochs,
            exclusive=members.exclusive,
        )
        request = asked.pack({**self.sent(model, moments=bool(epochs)), "coefficients": values})

        def spooled(site: SiteId, envelope: Envelope) -> TrainedReply:
            one = self.door.trained(
                envelope,
                asked=asked,
                sent=model.weights,
                site=members.sites[site],
                codes=len(members.vocabulary.codes),
            )
            spool.put(site, one.arrays())
            return one.without_model()

        with self.conversation.spool() as spool:
            if epochs:  # weights and both moments of each
                spool.check_room(3 * len(members.sites) * sum(array.nbytes for array in model.weights.values()))
            replies = self.conversation.ask(
                dict.fromkeys(members.sites, request),
                phase=f"train, arm {model.arm}, round {number}",
                check=spooled,
            )
            moved = _averaged(model, spool, replies) if epochs else model
        for one in replies.values():
            self.norms.remember(one.moved)
        counts = pool({site: one.soft for site, one in replies.items()})
        line = {
            "arm": model.arm,
            "round": number,
            **_round_event(replies, counts, loss=_loss(self.plan, counts)),
            "coefficients": values.tolist(),
            "strength": steering.strength if steering else None,
            "seconds": round(time.monotonic() - started, 3),
            "weights_sha256": weights_sha256(model.weights),
        }
        return replace(moved, counts=counts, steering=steering if epochs else model.steering), line

    def sent(self, model: Model, *, moments: bool) -> Arrays:
        """The model's weights, and moments where there are some, as they travel."""
        wire = self.plan.training.wire
        arrays = outgoing(model.weights, WEIGHT, wire=wire)
        if moments and model.moments:
            arrays |= outgoing(model.moments.first, FIRST, wire=wire) | outgoing(
                model.moments.second, SECOND, wire=wire
            )
        return arrays

    def steer(self, model: Model) -> Steering | None:
        """The steering of the next round, from the last pooled counts; none in the plain arm."""
        if model.arm != FAIRSYNTH or model.counts is None:
            return None
        slopes = coefficients(self.plan.objective, model.counts, reference=reference_mask(self.plan)).values
        return steer(slopes, before=model.steering)

    def keep(self, arm: str, weights: Arrays, members: Members) -> None:
        """Write the arm's global generator."""
        save(
            self.root,
            kind=f"generator-{arm}",
            weights=weights,
            vocabulary=members.vocabulary,
            config=self.plan.generator,
            inputs={"plan": plan_sha256(self.plan), "vocabulary": members.vocabulary.sha256},
            facts={
                "arm": arm,
                "seed": self.plan.seed,
                "rounds": self.plan.training.rounds,
                "sites": list(members.sites),
                "weights_sha256": weights_sha256(weights),
            },
        )

    # --- teach, feedback, audit

    def guide(self, weights: Arrays, members: Members) -> Guide | None:
        """What the sites settle beside the weights, kept in `terms/`; a guide where the plan has a teacher."""
        guide = None
        if is_taught(self.plan):
            teacher = teach(self.conversation, members)
            guide = plan_guide(self.conversation, members, weights=weights, teacher=teacher.weights)
        if guide or self.plan.training.primed:
            save_terms(self.root, Terms(exclusive=members.exclusive, guide=guide), plan=self.plan)
        return guide

    def audit(self, weights: Mapping[str, Arrays], members: Members, *, guide: Guide | None) -> None:
        """Every site generates at home, trains the predictors and sends counts of its real held-out patients."""
        self.journal.append("auditing", sites=list(members.sites))
        asked = AuditRequest(
            plan_sha256=plan_sha256(self.plan),
            vocabulary_sha256=members.vocabulary.sha256,
            exclusive=members.exclusive,
        )
        request = asked.pack(
            {name: array for arm in ARMS for name, array in weights_as(weights[arm], f"{arm}/weight/").items()}
            | (guide.arrays() if guide else {})
        )

        def spooled(site: SiteId, envelope: Envelope) -> AuditReply:
            one = self.door.audited(envelope, site=members.sites[site], codes=len(members.vocabulary.codes))
            spool.put(site, one.arrays)
            return one.reply

        with self.conversation.spool() as spool:
            replies = self.conversation.ask(dict.fromkeys(members.sites, request), phase="audit", check=spooled)
            _write_audit(self.root, replies, spool, plan=self.plan, weights=weights)
        self.journal.append("audited", sites=list(replies))


def _study_event(plan: StudyPlan) -> dict[str, object]:
    return {
        "name": plan.name,
        "plan_sha256": plan_sha256(plan),
        "roster": list(plan.roster),
        "quorum": plan.quorum,
        **({"required": list(plan.required)} if plan.required else {}),
        "seed": plan.seed,
        "versions": artefacts.software_versions(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _round_event(replies: Mapping[SiteId, TrainedReply], soft: FloatArray, *, loss: float | None) -> dict[str, object]:
    """What the journal tells of a round's replies; losses are nats a visit, label visits included."""
    bodies = [replies[site].reply for site in sorted(replies)]
    cells = sum(body.cells_train for body in bodies), sum(body.cells_validation for body in bodies)
    return {
        "sites": sorted(replies),
        "soft": soft.tolist(),
        "hard": pool({site: one.hard for site, one in replies.items()}).tolist(),
        "loss": loss,
        "nll_train": sum(body.nll_train for body in bodies) / max(cells[0], 1),
        "nll_validation": sum(body.nll_validation for body in bodies) / max(cells[1], 1),
        "bounded": any(body.bounded for body in bodies),
    }


def _loss(plan: StudyPlan, counts: FloatArray) -> float | None:
    """L_F at pooled counts; None where the objective is undefined."""
    try:
        return coefficients(plan.objective, counts, reference=reference_mask(plan)).loss
    except CohortError:
        return None


def _write_audit(
    root: Path, replies: Mapping[SiteId, AuditReply], spool: Spool, *, plan: StudyPlan, weights: Mapping[str, Arrays]
) -> None:
    """`audit/`: the axes, one file of counts a site, and what changed at each."""
    inputs = {"plan": plan_sha256(plan), **{f"generator-{arm}": weights_sha256(weights[arm]) for arm in ARMS}}
    axes = next(iter(replies.values())).model_dump(mode="json", exclude={"site", "changes"})
    changes = {site: [change.model_dump(mode="json") for change in replies[site].changes] for site in sorted(replies)}
    with artefacts.new(root, kind="audit", inputs=inputs, facts={"sites": sorted(replies)}) as folder:
        artefacts.write_json(folder / "axes.json", axes)
        artefacts.write_json(folder / "changes.json", changes)
        for site in sorted(replies):
            save_file(dict(spool.arrays(site)), folder / f"{site}.safetensors")


def _averaged(model: Model, spool: Spool, replies: Mapping[SiteId, TrainedReply]) -> Model:
    """The next global model and the optimiser's state for the next round, both weighted by n_i."""
    patients = {site: one.reply.patients for site, one in replies.items()}
    first, second = (average_of(spool, prefix, patients=patients) for prefix in (FIRST, SECOND))
    weights = average_of(spool, WEIGHT, patients=patients)
    return replace(model, weights=weights, moments=Moments(first=first, second=second))
