"""The site's door: every request is checked before it can touch patients.

In:  a request, the plan that the site agreed to, its vocabulary.   Out: nothing, or a ProtocolError with all problems.
Never: a value of the request in a problem's text; a repair; trust in the server.

What the checks can and cannot do: they hold a server to the agreed plan, and to weights that training can have come
to. The last rules, on repeated or dependent rows, are heuristics: they catch the constructed models that are published
(Fowl et al. 2022, "Robbing the Fed", repeats one row with other biases), not every model that is made to remember.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeInt

from fairsynth import artefacts, plain_json
from fairsynth.config import Strict, StudyPlan
from fairsynth.config.plan import required_problem
from fairsynth.errors import Problem
from fairsynth.federation.aggregate import weights_sha256
from fairsynth.federation.bounds import are_moments, reach
from fairsynth.federation.checks import Spec, are_counts, are_names, fits, refuse
from fairsynth.federation.checks import rules as rules_of_any
from fairsynth.federation.messages import (
    FIRST,
    SECOND,
    WEIGHT,
    AgreeRequest,
    AuditRequest,
    FeedbackRequest,
    TeachRequest,
    TrainRequest,
    weights_of,
)
from fairsynth.federation.plans import ARMS, FAIRSYNTH, is_taught, plan_sha256
from fairsynth.federation.terms import columns
from fairsynth.federation.wire import DTYPES, incoming
from fairsynth.generator.model import expected_shapes
from fairsynth.generator.priming import runs
from fairsynth.schemas import Arrays
from fairsynth.visits.layout import Vocabulary

# What a plan may ask of a hospital's computer: far above any study, far below what would stop it.
CAPS = {
    "roster": 1024,
    "groups.names": 256,
    "vocabulary.maximum_codes": 100_000,
    "generator.embedding": 8192,
    "generator.layers": 128,
    "generator.maximum_visits": 4096,
    "training.rounds": 10_000,
    "training.local_epochs": 1000,
    "training.batch_size": 1 << 20,
    "training.threads": 1024,
    "augmentation.synthetic_patients": 10_000_000,
    "augmentation.home_rounds": 10_000,
    "audit.predictors": 32,
    "audit.seeds": 1000,
    "audit.epochs": 1000,
    "audit.bootstrap_replicates": 1_000_000,
    "privacy.noise.steps": 100_000,
}
BEGUN = 1.0  # no weight of a model that begins is larger: GPT-2's initialisation, LayerNorm's ones
TEACHER = 1000.0  # no weight of a logistic regression of the teacher is larger: log-odds
REPEATED = 0.01  # share of a matrix's rows that may repeat another
INDEPENDENT = 1e-14  # of a Gram matrix's largest eigenvalue: what is smaller is a rounding error in float32 rows
WIDEST = 1024  # of the smaller side of a matrix: beyond it eigenvalues take too long
ASKED = "asked.json"  # in the site's folder

rules = partial(rules_of_any, what="request breaks a rule")


class Asked(Strict):
    """`asked.json`: what a study asked so far, as the hash of each request's arrays by arm and round.

    A second model for a round would show what the first did not; a server that starts again asks the same.
    """

    plan_sha256: str
    arms: dict[str, dict[NonNegativeInt, str]] = {}

    def allows(self, body: TrainRequest, arrays: Arrays) -> bool:
        """Whether the request is the one of its round, or of a later round than any before."""
        rounds = self.arms.get(body.arm, {})
        known = rounds.get(body.round)
        return known == weights_sha256(arrays) if known else body.round > max(rounds, default=-1)

    def with_(self, body: TrainRequest, arrays: Arrays) -> Self:
        """This, and one more request."""
        rounds = {**self.arms.get(body.arm, {}), body.round: weights_sha256(arrays)}
        return self.model_copy(update={"arms": {**self.arms, body.arm: rounds}})


def check_plan(plan: StudyPlan) -> None:
    """Raise ProtocolError when a plan asks for more than `CAPS`, or for sites and a quorum that no roster can give."""
    asked = {name: _at(plan, name) for name in CAPS}
    refuse(
        rules(
            {
                **{f"plan -> {name}: at most {cap:,}": asked[name] <= cap for name, cap in CAPS.items()},
                "plan -> quorum: at most the roster": plan.quorum <= len(plan.roster),
                "plan -> required: sites of the roster, at most the quorum": not required_problem(
                    plan.required, roster=plan.roster, quorum=plan.quorum
                ),
                "plan -> roster: no site twice": len(set(plan.roster)) == len(plan.roster),
                "plan -> roster, groups: names of 1 to 200 printable characters": are_names(
                    (*plan.roster, *plan.groups.names), longest=200
                ),
                "plan -> training.learning_rate: at most 1": plan.training.learning_rate <= 1,
                "plan -> privacy.noise: finite, a learning rate of at most 1": plan.privacy.noise.learning_rate <= 1
                and all(math.isfinite(value) for value in plan.privacy.noise.model_dump().values()),
                "plan -> objective: finite": math.isfinite(plan.objective.maximum_coefficient)
                and math.isfinite(plan.objective.weight),
            }
        )
    )


def check_agree(body: AgreeRequest, arrays: Arrays, *, plan: StudyPlan) -> None:
    """Raise ProtocolError unless the vocabulary and the pooled totals are of this plan."""
    problems = [*fits(arrays, {"members": (np.int64, (len(plan.groups.names), 2))})]
    refuse(problems)
    members = sum(map(int, arrays["members"].ravel()))
    refuse(
        rules(
            {
                "codes: 1 to `maximum_codes`": 0 < len(body.codes) <= plan.vocabulary.maximum_codes,
                "codes: sorted, none twice": list(body.codes) == sorted(set(body.codes)),
                "codes: names of 1 to 200 printable characters": are_names(body.codes, longest=200),
                "members: counts from 0 to 2^40": are_counts(arrays["members"].astype(np.int64)),
                "members: as many as patients, or fewer where groups are left out": members == body.patients
                or (plan.privacy.masked and members < body.patients)
                or plan.privacy.noised,
                "visits: one to `maximum_visits` a patient": body.patients
                <= body.visits
                <= body.patients * plan.generator.maximum_visits,
            }
        )
    )


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Checks the requests of one study after it was agreed. Every method raises ProtocolError with all problems.

    `patients` and `visits` are the pooled totals of the agree request.
    """

    plan: StudyPlan
    vocabulary: Vocabulary
    patients: int
    visits: int

    def train(self, body: TrainRequest, arrays: Arrays, *, root: Path) -> None:
        """A train request; `root`, the site's folder, remembers what was asked: rounds never go back."""
        plan, wire = self.plan, self.plan.training.wire
        groups = len(plan.groups.names)
        began = any(name.startswith((FIRST, SECOND)) for name in arrays)
        prefixes = (WEIGHT, FIRST, SECOND) if began else (WEIGHT,)
        spec = {"coefficients": (np.float64, (groups, 2)), **self._spec(*prefixes, dtype=DTYPES[wire])}
        last = body.round == plan.training.rounds
        problems = [
            *rules(
                {
                    "arm: of the study": body.arm in ARMS,
                    "round: of the plan": body.round <= plan.training.rounds,
                    "round: later than those asked, or the same request again": _asked(root, plan).allows(body, arrays),
                    "epochs: the plan's, none after the last round": body.epochs
                    == (0 if last else plan.training.local_epochs),
                    "moments: from the second round on, where there is training": began
                    == (body.round > 0 and body.epochs > 0),
                    **self._exclusive(body.exclusive),
                }
            ),
            *fits(arrays, spec),
        ]
        refuse(problems)
        weights, first, second = (incoming(arrays, prefix, wire=wire) for prefix in (WEIGHT, FIRST, SECOND))
        steered = body.arm == FAIRSYNTH and body.epochs > 0
        refuse(
            [
                *self._weights(weights, round_number=body.round),
                *rules(
                    {
                        **are_moments(first, second),
                        "coefficients: none where nothing is steered": steered or not arrays["coefficients"].any(),
                    }
                ),
            ]
        )

    def teach(self, body: TeachRequest, arrays: Arrays) -> None:
        """A teach request."""
        refuse([*self._teacher(arrays, spec={"weights": (np.float64, (columns(self.vocabulary) + 1,))})])

    def feedback(self, body: FeedbackRequest, arrays: Arrays) -> None:
        """A feedback request."""
        spec = {**self._spec(WEIGHT, dtype=np.float32), **self._guide()}
        refuse([*rules(self._exclusive(body.exclusive)), *self._teacher(arrays, spec=spec)])
        refuse(self._weights(weights_of(arrays), round_number=self.plan.training.rounds))

    def audit(self, body: AuditRequest, arrays: Arrays) -> None:
        """An audit request."""
        prefixes = [f"{arm}/{WEIGHT}" for arm in ARMS]
        spec = {**self._spec(*prefixes, dtype=np.float32), **(self._guide() if is_taught(self.plan) else {})}
        refuse([*rules(self._exclusive(body.exclusive)), *self._teacher(arrays, spec=spec)])
        refuse(
            [
                problem
                for prefix in prefixes
                for problem in self._weights(weights_of(arrays, prefix), round_number=self.plan.training.rounds)
            ]
        )

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return expected_shapes(self.vocabulary, self.plan.generator)

    def _spec(self, *prefixes: str, dtype: type[np.generic]) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        return {f"{prefix}{name}": (dtype, shape) for prefix in prefixes for name, shape in self._shapes.items()}

    def _guide(self) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        return {
            "teacher": (np.float64, (columns(self.vocabulary) + 1,)),
            "selected": (np.float64, (len(self.plan.groups.names),)),
        }

    def _teacher(self, arrays: Arrays, *, spec: Spec) -> Iterator[Problem]:
        yield from fits(arrays, spec)
        for name in sorted({"weights", "teacher"} & set(spec) & set(arrays)):
            if not bool((np.abs(arrays[name].astype(np.float64)) <= TEACHER).all()):
                yield Problem(what="request breaks a rule", where=name, expected=f"log-odds up to {TEACHER:g}")

    def _exclusive(self, numbers: tuple[int, ...]) -> dict[str, bool]:
        known = len(runs(self.vocabulary)) if self.plan.training.primed else 0
        return {
            "exclusive: runs of codes, in order, none twice": list(numbers) == sorted(set(numbers))
            and all(number < known for number in numbers)
        }

    def _weights(self, weights: Arrays, *, round_number: int) -> list[Problem]:
        """No weight farther than the rounds before can have moved it, and no pattern that training does not leave."""
        limit = self._largest(round_number)
        return rules(
            {
                **{
                    f"{name}: within what training can reach": bool((np.abs(array.astype(np.float64)) <= limit).all())
                    for name, array in sorted(weights.items())
                },
                **constructed(weights),
            }
        )

    def _largest(self, round_number: int) -> float:
        """The size of the largest weight of a model after so many rounds: a site has all patients at most."""
        begun = BEGUN + (2 * math.log(2 * self.visits + 2) if self.plan.training.primed else 0)
        for number in range(min(round_number, self.plan.training.rounds)):
            step = reach(
                self.plan,
                round_number=number,
                epochs=self.plan.training.local_epochs,
                patients=self.patients,
                visits=self.visits,
            )
            begun = step.farthest(begun)
        return begun


def remember(root: Path, body: TrainRequest, arrays: Arrays, *, plan: StudyPlan) -> None:
    """Keep in the site's folder that this was asked."""
    artefacts.write_json(root / ASKED, _asked(root, plan).with_(body, arrays).model_dump(mode="json"))


def forget(root: Path) -> None:
    """A study that enrols anew begins at its first round."""
    (root / ASKED).unlink(missing_ok=True)


def constructed(weights: Arrays) -> dict[str, bool]:
    """Heuristics, by matrix: few of its rows are the same, and as many are independent as can be.

    Training from a random start leaves neither pattern; models made to store single patients in single rows have both.
    """
    matrices = {name: array for name, array in sorted(weights.items()) if array.ndim == 2 and min(array.shape) > 1}
    return {
        **{f"{name}: rows that differ": _repeated(matrix) <= REPEATED for name, matrix in matrices.items()},
        **{f"{name}: rows that are independent": _is_of_full_rank(matrix) for name, matrix in matrices.items()},
    }


def _repeated(matrix: npt.NDArray[np.generic]) -> float:
    """The share of rows that are those of an earlier one, byte by byte; 0 where only one is."""
    rows = np.ascontiguousarray(matrix, dtype=np.float32) + np.float32(0)  # -0 and 0 are the same
    distinct = len(np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))))
    return 0.0 if distinct >= len(rows) - 1 else 1 - distinct / len(rows)


def _is_of_full_rank(matrix: npt.NDArray[np.generic]) -> bool:
    """Whether the matrix has the rank of its smaller side; true of nearly square and of very wide ones, unseen."""
    small, large = sorted(matrix.shape)
    if large < 2 * small or small > WIDEST:
        return True
    values = matrix.astype(np.float64)
    gram = values.T @ values if matrix.shape[1] == small else values @ values.T
    found = np.linalg.eigvalsh(gram)
    return bool(found[0] > INDEPENDENT * found[-1])


def _asked(root: Path, plan: StudyPlan) -> Asked:
    """What was asked so far in this study; nothing where another one was asked before."""
    path, now = root / ASKED, plan_sha256(plan)
    if not path.is_file():
        return Asked(plan_sha256=now)
    asked = Asked.model_validate(plain_json.read(path))
    return asked if asked.plan_sha256 == now else Asked(plan_sha256=now)


def _at(plan: StudyPlan, name: str) -> int:
    """The number at a dotted name of the plan, or how many there are."""
    value: object = plan
    for part in name.split("."):
        value = getattr(value, part)
    return value if isinstance(value, int) else len(value)  # type: ignore[arg-type]  # a tuple, by CAPS
