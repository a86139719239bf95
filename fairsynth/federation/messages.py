"""What server and sites say to each other: one dataclass a message, arrays beside JSON fields.

In:  values.   Out: `Envelope`, which any transport can carry, and back.
Never: flwr, files, exception text, patient data other than the counts that are named here.

Phases: (join ->) enrol -> agree -> train (per arm and round) -> audit. Where the plan's candidates are taught, teach
and feedback come before the audit, each with several requests.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import NonNegativeInt, PositiveInt
from pydantic import ValidationError as PydanticError

from fairsynth import plain_json
from fairsynth.config import Strict, StudyPlan
from fairsynth.errors import Problem, ProtocolError
from fairsynth.fairness.verdict import SiteChange
from fairsynth.federation.masking.keys import Announcement
from fairsynth.federation.masking.roster import Hex32, Hex64
from fairsynth.schemas import Arrays, SiteId

MAXIMUM_BYTES = 1 << 30  # of all arrays of one message

Runs = tuple[NonNegativeInt, ...]  # numbers of runs of codes of which no visit of any site has two; primed studies only


class Envelope(Strict):
    """A message as transports see it: `kind`, JSON `fields` (of one of the models below), and named arrays."""

    model_config: ClassVar = {**Strict.model_config, "arbitrary_types_allowed": True}

    kind: str
    fields: str
    arrays: Arrays = {}


class Body(Strict):
    """JSON fields of one kind of message."""

    kind: ClassVar[str]

    def pack(self, arrays: Arrays | None = None) -> Envelope:
        """This body and its arrays as an envelope."""
        return Envelope(kind=self.kind, fields=self.model_dump_json(by_alias=True), arrays=arrays or {})

    @classmethod
    def unpack(cls, envelope: Envelope) -> Self:
        """The body of `envelope`. Raises ProtocolError when it is of another kind or does not fit."""
        if envelope.kind != cls.kind:
            raise ProtocolError(Problem(what="message of another kind", where=cls.kind, expected=cls.kind))
        plain_json.parse(envelope.fields, where=f"{cls.kind} -> fields", error=ProtocolError)
        try:
            return cls._read(envelope.fields)
        except PydanticError as error:
            keys = {_known(cls, detail["loc"]) for detail in error.errors()}
            what = Problem(what="message does not fit its schema", where=cls.kind, expected=f"valid {sorted(keys)}")
            raise ProtocolError(what) from None

    @classmethod
    def _read(cls, fields: str) -> Self:
        """Strictly: a truth value is no number, a text no list. Raises pydantic's ValidationError."""
        return cls.model_validate_json(fields, strict=True)


def _plain(text: str) -> str:
    """JSON in one form: two texts of it are equal when all their keys, values and types are."""
    return json.dumps(json.loads(text), sort_keys=True)


def _known(model: type[Body], location: tuple[int | str, ...]) -> str:
    """The field that does not fit, as the schema names it: the other side chose every further key, and unknown ones."""
    names = {field.alias or name for name, field in model.model_fields.items()}
    return str(location[0]) if location and location[0] in names else "fields, no unknown ones"


class SiteReply(Body):
    """What every reply says: whose it is, and of which study."""

    site: SiteId
    plan_sha256: str


class PlanRequest(Body):
    """A request that brings the plan."""

    plan: StudyPlan

    @classmethod
    def _read(cls, fields: str) -> Self:
        """As strictly, another way: a plan's own checks rebuild parts of it, so its text must be the one it writes."""
        found = cls.model_validate_json(fields)
        if _plain(fields) != _plain(found.model_dump_json(by_alias=True)):
            raise ProtocolError.of(
                "plan in another form", where=f"{cls.kind} -> plan", expected="as FairSynth writes it"
            )
        return found


class JoinRequest(PlanRequest):
    """Server -> site: make a key for this run; masked studies only (docs/masking.md)."""

    kind: ClassVar[str] = "join"
    run: Hex32  # names the run; random
    epoch: NonNegativeInt


class JoinReply(SiteReply):
    """Site -> server: the site's X25519 public key, signed with its identity."""

    kind: ClassVar[str] = "joined"
    key: Announcement


class EnrolRequest(PlanRequest):
    """Server -> site: extract, build the cohort, and propose codes. `keys` of all sites in masked studies."""

    kind: ClassVar[str] = "enrol"
    keys: tuple[Announcement, ...] = ()


class SealedReply(SiteReply):
    """Site -> server, masked studies: the reply to any later request, with nothing of one site's in clear.

    Arrays: `masked` uint64 (L,), the vector of `schema_sha256` (`masking.forms`) plus the site's masks, mod 2^64.
    `said` are the JSON fields that are the same at every site. The signature is the site's identity's.
    """

    kind: ClassVar[str] = "sealed"
    of: str  # the kind of reply that is masked
    run: Hex32
    epoch: NonNegativeInt
    purpose: str
    schema_sha256: Hex32
    said: dict[str, Any] = {}
    signature: Hex64


class EnrolReply(SiteReply):
    """Site -> server. Arrays: `members` int64 (G, 2), training patients by (group, label)."""

    kind: ClassVar[str] = "enrolled"
    data_sha256: str  # of the site's events artefact: names the data, reveals nothing of it
    codes: dict[str, NonNegativeInt]  # rolled-up code -> training patients who carry it, at least `minimum_patients`
    visits: NonNegativeInt  # of training patients
    flow: dict[str, NonNegativeInt]  # cohort flow, step -> patients left


class PooledEnrolReply(EnrolReply):
    """The sum of all sites' in masked studies, made at the server. `unused`: by label, patients of groups left out."""

    unused: tuple[int, int]  # below 0 only by noise


class AgreeRequest(Body):
    """Server -> site: the shared vocabulary and the pooled totals; encode the cohort with them.

    Arrays: `members` int64 (G, 2), pooled over sites.
    """

    kind: ClassVar[str] = "agree"
    plan_sha256: str
    codes: tuple[str, ...]
    patients: PositiveInt  # n: training patients of all sites
    visits: PositiveInt  # their visits, label visits not counted


class AgreeReply(SiteReply):
    """Site -> server: encoded; how much of the site's data the shared vocabulary covers.

    Arrays: `cohort` int64 (3, G, 2), patients by (split, group, label). Where the plan's training is primed, also
    `occurs` int64 (V,), training patients with each context token and their visits with each code, and `shared` int64
    (R,), their visits with at least two codes of each run of codes (`generator.priming.Shown`).
    """

    kind: ClassVar[str] = "agreed"
    vocabulary_sha256: str
    mapped_share: float | None = None  # of the site's code occurrences in training visits; not told under noise


class PooledAgreeReply(AgreeReply):
    """The sum of all sites' in masked studies, made at the server. `unused`: by split, patients of groups left out."""

    unused: tuple[int, int, int]


class TrainRequest(Body):
    """Server -> site: train `arm` from these weights.

    Arrays: `weight/<name>` float32 for every parameter; after an arm's first round, `first/<name>` and
    `second/<name>` float32, the optimiser's moments averaged over the sites; `coefficients` float64 (G, 2), dL_F/dS_g
    and dL_F/dTP_g. Where the plan's wire is bfloat16, uint16 instead of float32 (see `wire`).
    `epochs` 0 asks for the counts and losses of the received model only.
    """

    kind: ClassVar[str] = "train"
    plan_sha256: str
    vocabulary_sha256: str
    exclusive: Runs = ()
    arm: str  # "plain" or "fairsynth"
    round: NonNegativeInt
    epochs: NonNegativeInt


class TrainReply(SiteReply):
    """Site -> server. Statistics are of the *received* model on training patients; losses on both splits.

    Arrays: `weight/<name>`, `first/<name>` and `second/<name>` float32; `soft` and `hard` float64 (G, 4): members N_g,
    positives P_g, predicted S_g, true positives TP_g, all summed over the site's training patients. Where the plan's
    wire is bfloat16, uint16 instead of float32, and `change/<name>`, how a weight changed, instead of `weight/<name>`.
    """

    kind: ClassVar[str] = "trained"
    arm: str
    round: NonNegativeInt
    patients: PositiveInt  # n_i, the weight of this site in the average
    nll_train: float  # summed negative log-likelihood (nats) of training visits, label visits included
    nll_validation: float
    cells_train: NonNegativeInt  # visits (label visits included) that `nll_train` sums over
    cells_validation: NonNegativeInt
    bounded: bool  # whether a coefficient hit its bound


class NoisedTrainReply(SiteReply):
    """Site -> server, studies with noise: weights from DP-SGD; no loss and no count without noise.

    Arrays: where there is training, `weight/<name>`, `first/<name>` and `second/<name>` float32; in the rounds of
    `plans.counted_rounds`, `counts` int64 (G, 3): P_g, S_g and TP_g of the received model, fixed point
    (`noise.UNIT` is 1), with noise.
    """

    kind: ClassVar[str] = "trained"
    arm: str
    round: NonNegativeInt
    patients: PositiveInt  # with noise, as enrolled


class NoisedAuditReply(SiteReply):
    """Site -> server, studies with noise: the audit is done, and its results stay at the site."""

    kind: ClassVar[str] = "audited_at_home"


class TeachRequest(Body):
    """Server -> site: add up the logistic regression's loss and its derivatives at these weights.

    Arrays: `weights` float64 (F + 1,) on the bag of tokens (codes, phenotypes, groups, sexes and ages), then the bias.
    """

    kind: ClassVar[str] = "teach"
    plan_sha256: str
    vocabulary_sha256: str
    number: NonNegativeInt = 0  # of the request: one reply for each


class TeachReply(SiteReply):
    """Site -> server: sums over training patients, and one over validation patients.

    Arrays: `gradient` float64 (F + 1,); `hessian` float64 ((F + 1)(F + 2) / 2,), the upper triangle row by row.
    """

    kind: ClassVar[str] = "taught"
    loss: float  # nats of training patients
    validation: float  # nats of validation patients at the same weights


class FeedbackRequest(Body):
    """Server -> site: add patients by this guide, train the plan's first predictor, count on real patients.

    Arrays: `weight/<name>` float32 of the fairness-optimised generator; `teacher` float64 (F + 1,), the weights that
    the phase teach ended with; `selected` float64 (G,), the share of a group's candidates above its cut, in (0, 1).
    """

    kind: ClassVar[str] = "feedback"
    plan_sha256: str
    vocabulary_sha256: str
    number: NonNegativeInt = 0  # of the trial: one reply for each
    exclusive: Runs = ()


class FeedbackReply(SiteReply):
    """Site -> server: counts only.

    Arrays: `validation` int64 (G, 4), TP, FP, FN, TN at 0.5 of real validation patients; `seen` int64 (G, 4), the same
    of training and validation patients together.
    """

    kind: ClassVar[str] = "fed_back"


class AuditRequest(Body):
    """Server -> site: generate R' at home with both arms, train the predictors, evaluate on held-out real patients.

    Arrays: `<arm>/weight/<name>` float32 for both arms. Where the plan's candidates are taught, also `teacher` and
    `selected`, as in `FeedbackRequest`: those that were kept.
    """

    kind: ClassVar[str] = "audit"
    plan_sha256: str
    vocabulary_sha256: str
    exclusive: Runs = ()


class AuditReply(SiteReply):
    """Site -> server: counts, and how three metrics changed with FairSynth's patients.

    Axes: A approaches, P predictors, K seeds, H thresholds ("half", "tuned"), G groups, Q = 4 (TP, FP, FN, TN).
    Arrays: `confusion` int64 (A, P, K, H, G, 4); `scores` int64 (A, P, K, G, 2, 200), histogram of scores on [0, 1] by
    label; `synthetic` int64 (A, G, 2), synthetic or copied patients added, by (group, label); `code_visits` int64
    (3, C), visits with each code in training, held-out and synthetic (fairsynth) patients; `code_totals` int64 (3,),
    visits of each; `alone` int64 (2, G, 2, 200), histogram of scores of a predictor trained on real training patients
    alone, and on synthetic ones alone.
    """

    kind: ClassVar[str] = "audited"
    approaches: tuple[str, ...]
    predictors: tuple[str, ...]
    thresholds: tuple[str, ...]
    seeds: PositiveInt
    changes: tuple[SiteChange, ...]  # from real patients alone: by predictor, then by threshold


class Failed(Body):
    """Site -> server: the request could not be met. A code, never text."""

    kind: ClassVar[str] = "failed"
    site: SiteId
    code: str


def named_site(envelope: Envelope) -> SiteId:
    """The site that a reply says it is of, whatever its kind; empty where it says nothing that can be read."""
    try:
        fields = plain_json.parse(envelope.fields, where=envelope.kind, error=ProtocolError)
    except ProtocolError:
        return SiteId("")
    return SiteId(str(fields.get("site", ""))) if isinstance(fields, dict) else SiteId("")


WEIGHT = "weight/"
FIRST = "first/"
SECOND = "second/"


def weights_of(arrays: Arrays, prefix: str = WEIGHT) -> Arrays:
    """The arrays under `prefix`, with the prefix removed."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def weights_as(weights: Arrays, prefix: str = WEIGHT) -> Arrays:
    """`weights` with `prefix` before each name, float32."""
    return {f"{prefix}{name}": np.asarray(array, dtype=np.float32) for name, array in weights.items()}
