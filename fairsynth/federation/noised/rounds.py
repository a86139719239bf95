"""The server's loop of a study with noise: both arms with DP-SGD, steered by counts that are released now and then.

In:  a conversation, a plan.   Out: as `loop`, but no `audit/`: results stay at the sites.
Never: a coefficient that noise may have made; a loss, for none leaves the sites.

Counts are asked in the fairsynth arm alone, every `counted_every` rounds; between two counts the coefficients stay.
They come with noise, so only coefficients that stand out of it are used (`steady`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fairsynth.errors import CohortError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.damping import Steering, steer
from fairsynth.federation.aggregate import weights_sha256
from fairsynth.federation.agreement import Members
from fairsynth.federation.course import Model
from fairsynth.federation.journal import Event
from fairsynth.federation.loop import Server
from fairsynth.federation.messages import AuditRequest, TrainRequest, weights_as
from fairsynth.federation.noised.door import NoisedDoor, NoisedTrained
from fairsynth.federation.noised.releases import prediction_norm, releases_of
from fairsynth.federation.noised.steady import outstanding, possible
from fairsynth.federation.plans import ARMS, FAIRSYNTH, counted_rounds, plan_sha256, reference_mask
from fairsynth.federation.terms import Guide
from fairsynth.schemas import Arrays, FloatArray
from fairsynth.seeds import stream


class NoisedServer(Server):
    """The loop of one study with noise."""

    @property
    def door(self) -> NoisedDoor:
        """What every reply is checked by."""
        return NoisedDoor(plan=self.plan, norms=self.norms)

    def announce(self) -> None:
        """Tell which study begins, and its noise."""
        super().announce()
        self.journal.append("privacy", **self._noise())

    def train(self, model: Model, members: Members) -> tuple[Arrays, FloatArray]:
        """As `Server.train`; no counts come from the arm before."""
        return super().train(replace(model, counts=None), members)

    def rounds(self, arm: str) -> int:
        """The requests of an arm: the plan's rounds, and in the fairsynth arm a last count."""
        return self.plan.training.rounds + (arm == FAIRSYNTH)

    def round(self, model: Model, members: Members, *, number: int, epochs: int) -> tuple[Model, Event]:
        """One request to all sites: count where it is due, train where epochs are asked; what is to be told."""
        started = time.monotonic()
        values = model.steering.coefficients if model.steering and epochs else self._nothing()
        asked = TrainRequest(
            plan_sha256=plan_sha256(self.plan),
            vocabulary_sha256=members.vocabulary.sha256,
            arm=model.arm,
            round=number,
            epochs=epochs,
        )
        request = asked.pack({**self.sent(model, moments=bool(epochs)), "coefficients": values})
        replies = self.conversation.ask(
            dict.fromkeys(members.sites, request),
            phase=f"train, arm {model.arm}, round {number}",
            check=lambda site, envelope: self.door.noised(
                envelope, asked=asked, sent=model.weights, site=members.sites[site]
            ),
        )
        (reply,) = replies.values()
        self.norms.remember(reply.moved)
        counts = self._counts(reply, members)
        line = {
            "arm": model.arm,
            "round": number,
            "sites": sorted(replies),
            "soft": None if counts is None else counts.tolist(),
            "hard": None,
            "loss": None if counts is None else self._loss(counts),
            "nll_train": None,
            "nll_validation": None,
            "bounded": False,
            "coefficients": values.tolist(),
            "strength": model.steering.strength if model.steering and epochs else None,
            "seconds": round(time.monotonic() - started, 3),
            "weights_sha256": weights_sha256(model.weights),
        }
        counted = model if counts is None else replace(model, counts=counts, steering=self._steering(model, counts))
        return (replace(counted, weights=reply.weights, moments=reply.moments) if epochs else counted), line

    def guide(self, weights: Arrays, members: Members) -> Guide | None:
        """None: a plan with noise has no teacher."""
        return None

    def audit(self, weights: Mapping[str, Arrays], members: Members, *, guide: Guide | None) -> None:
        """Every site generates, trains the predictors and evaluates at home; it tells that it did."""
        self.journal.append("auditing", sites=list(members.sites))
        request = AuditRequest(plan_sha256=plan_sha256(self.plan), vocabulary_sha256=members.vocabulary.sha256).pack(
            {name: array for arm in ARMS for name, array in weights_as(weights[arm], f"{arm}/weight/").items()}
        )
        self.conversation.ask(
            dict.fromkeys(members.sites, request),
            phase="audit",
            check=lambda site, envelope: self.door.stayed(envelope, site=members.sites[site]),
        )
        self.journal.append("audited", sites=list(self.plan.roster), at_home=True)

    def _noise(self) -> dict[str, object]:
        """What the journal tells of the plan's noise."""
        found, noise = releases_of(self.plan), self.plan.privacy.noise
        return {
            "epsilon": found.epsilon().tight,
            "delta": self.plan.privacy.delta,
            "accountant": "pld",
            "noise_multiplier": found.training.noise_multiplier,
            "clip": noise.clip,
            "batch_share": noise.batch_share,
            "steps": len(ARMS) * self.plan.training.rounds * noise.steps,
            "counts_ratio": found.ratio,
            "counted_rounds": list(counted_rounds(self.plan)),
            "releases": len(found.by_label),
        }

    def _nothing(self) -> FloatArray:
        return np.zeros((len(self.plan.groups.names), 2))

    def _counts(self, reply: NoisedTrained, members: Members) -> FloatArray | None:
        """(G, 4) N, P, S and TP with noise, as near as counts can be to them; 0 for groups that are left out."""
        if reply.counts is None:
            return None
        label = self.plan.objective.target == "label"
        enrolled = self._members(members)
        positives = enrolled[:, 1].astype(np.float64) if label else reply.counts[:, 0]
        counts = np.stack([enrolled.sum(axis=1), positives, reply.counts[:, 1], reply.counts[:, 2]], axis=1)
        counts[~self._used(members)] = 0.0
        return possible(counts, label=label)

    def _steering(self, model: Model, counts: FloatArray) -> Steering | None:
        """Of the rounds until the next counts."""
        slopes = outstanding(
            self.plan.objective,
            counts,
            deviations=self._deviations(counts),
            reference=reference_mask(self.plan),
            seed=stream(self.plan.seed, "steady"),
        )
        return steer(slopes, before=model.steering)

    def _deviations(self, counts: FloatArray) -> FloatArray:
        """(G, 4) standard deviations of the noise on pooled counts; none where a group is left out."""
        one = releases_of(self.plan).cells_deviation(sites=len(self.plan.roster))
        predicted = one * prediction_norm(self.plan)
        label = self.plan.objective.target == "label"
        row = np.array([one * 2**0.5, one if label else predicted, predicted, predicted])
        return np.where(counts[:, :1] > 0, row, 0.0)

    def _loss(self, counts: FloatArray) -> float | None:
        """L_F at counts with noise; None where the objective is undefined."""
        try:
            return coefficients(self.plan.objective, counts, reference=reference_mask(self.plan)).loss
        except CohortError:
            return None

    @staticmethod
    def _members(members: Members) -> FloatArray:
        (site,) = members.sites.values()
        return site.enrolled.members.astype(np.float64)

    def _used(self, members: Members) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(G,) groups that are not left out."""
        return np.array([name not in self.conversation.left_out for name in self.plan.groups.names])
