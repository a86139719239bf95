"""The plan of a study: what all its sites agree on.

In:  the shared part of a study file.   Out: frozen models.   Never: a path, or anything of one site alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from fairsynth.config.base import Fraction, Name, Strict
from fairsynth.schemas import SEXES, Group, SiteId


class TaskConfig(Strict):
    """What the downstream model predicts, and from what."""

    name: str = "in_hospital_mortality"
    observation_hours: PositiveInt = 48  # of the index visit, where the task predicts inside a visit


class SplitConfig(Strict):
    """Shares of patients; a patient is in one split only."""

    train: Fraction = 0.8
    validation: Fraction = 0.1
    held_out: Fraction = 0.1

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if abs(self.train + self.validation + self.held_out - 1) > 1e-9:
            raise ValueError("train + validation + held_out must be 1")
        return self


class GroupsConfig(Strict):
    """The taxonomy of the sensitive attribute, in a fixed order, and the groups that the others are compared to.

    With `cross: sex` a study file names the attribute's own groups, and each becomes `<group>:female` and
    `<group>:male` in `names`; `reference` may name either. What is written out names the
    crossed groups, and reads back as the same.
    """

    names: tuple[Group, ...] = Field(min_length=2)
    reference: tuple[Group, ...] = Field(min_length=1)
    cross: Literal["none", "sex"] = "none"

    @property
    def attribute_names(self) -> tuple[Group, ...]:
        """The groups that a site's rules may assign: `names` before they were crossed."""
        return tuple(dict.fromkeys(self.attribute_name(name) for name in self.names))

    def attribute_name(self, name: Group) -> Group:
        """The attribute's own group that the group `name` is part of."""
        return Group(name.rpartition(":")[0]) if self.cross == "sex" else name

    @model_validator(mode="before")
    @classmethod
    def _cross(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("cross") != "sex":
            return given
        lists = {key: given[key] for key in ("names", "reference") if isinstance(given.get(key), list | tuple)}
        return {**given, **{key: tuple(_by_sex(names)) for key, names in lists.items()}}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a group is named twice")
        if self.cross == "sex" and set(self.names) != set(_by_sex(self.attribute_names)):
            raise ValueError("with `cross: sex`, name the attribute's groups, or both sexes of each")
        if unknown := [group for group in self.reference if group not in self.names]:
            raise ValueError(f"reference group {unknown[0]!r} is not among `names`")
        if len(set(self.reference)) == len(self.names):
            raise ValueError("at least one group must not be a reference group")
        return self


def _by_sex(names: Iterable[Any]) -> Iterator[Any]:
    """Each group as female and male; one that says its sex already, or is no text at all, as it is."""
    for name in names:
        if not isinstance(name, str) or name.endswith(tuple(f":{sex}" for sex in SEXES)):
            yield name
        else:
            yield from (f"{name}:{sex}" for sex in SEXES)


class LevelsConfig(Strict):
    """How far codes are rolled up; sites with different code systems meet at the first of each (docs/cohort.md)."""

    diagnoses: Literal["ccs", "category", "source"] = "ccs"
    procedures: Literal["class", "category", "source"] = "class"
    drugs: Literal["generic", "source"] = "generic"


class VocabularyConfig(Strict):
    """Which codes become tokens."""

    levels: LevelsConfig = LevelsConfig()
    minimum_patients: PositiveInt = 11  # a code that fewer training patients of a site carry never leaves it
    maximum_codes: PositiveInt = 4000
    phenotypes: bool = True  # the 25 CCS groups of the MIMIC benchmark, in the label visit


Favourable = Literal["positive", "negative"]  # which prediction does a patient good


class ObjectiveTerm(Strict):
    """One fairness loss."""

    name: str = "disparate_impact"  # an entry point of `fairsynth.objectives`
    comparison: Literal["pooled", "mean", "max"] = "pooled"
    favourable: Favourable = "positive"  # negative: the loss sees predictions and labels of 0 in place of those of 1
    share: PositiveFloat = 1.0  # of the loss in the sum of all terms


class ObjectiveConfig(ObjectiveTerm):
    """The fairness objective in the generator's loss, lambda (share L + sum of share_k L_k); docs/objectives.md."""

    target: Literal["codes", "label"] = "codes"
    also: tuple[ObjectiveTerm, ...] = ()  # further losses beside the first
    weight: NonNegativeFloat = Field(default=1.2, alias="lambda")
    maximum_coefficient: PositiveFloat = 1.0  # bound on |n * c_g|; reached values are reported

    @property
    def terms(self) -> tuple[ObjectiveTerm, ...]:
        """The losses that are added up, the first included."""
        first = ObjectiveTerm(**{name: getattr(self, name) for name in ObjectiveTerm.model_fields})
        return (first, *self.also)

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        if self.target == "codes" and any(term.favourable == "negative" for term in self.terms):
            raise ValueError("`favourable: negative` needs `target: label`: codes have no negative predictions")
        if len({(term.name, term.comparison, term.favourable) for term in self.terms}) < len(self.terms):
            raise ValueError("a loss is named twice in `also`: add their shares")
        return self


class GeneratorConfig(Strict):
    """HALO's size."""

    embedding: PositiveInt = 128
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    maximum_visits: PositiveInt = 48

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embedding % self.heads:
            raise ValueError("embedding must be a multiple of heads")
        return self


Wire = Literal["float32", "bfloat16"]  # how weights and moments travel in a round


class TrainingConfig(Strict):
    """Federated training of the generator."""

    rounds: PositiveInt = 32
    local_epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3  # in the first round
    final_learning_rate_share: Fraction = 0.05  # of it in the last round; a half cosine lies between
    weight_decay: NonNegativeFloat = 0.0  # decoupled from the gradient, times the learning rate
    threads: PositiveInt = 1  # torch threads at a site; fixed, because CPU sums depend on it
    round_deadline_seconds: PositiveInt = 900
    wire: Wire = "float32"  # bfloat16 halves the bytes of a round: docs/federation.md
    primed: bool = False  # sites begin alike from what their patients show together: docs/federation.md


class AugmentationConfig(Strict):
    """How many synthetic patients each site adds to its real ones, and how they are made.

    A teacher tells the server more than the rest of a study does (docs/security.md), so a plan has none unless it says.
    """

    synthetic_patients: PositiveInt = 2500
    plan: Literal["equal_rates", "equal_cells"] = "equal_rates"  # which patients they are: docs/augmentation.md
    candidates: Literal["prefix", "taught"] = "prefix"  # what gives a patient its label: docs/augmentation.md
    home_rounds: NonNegativeInt = 0  # of the fairness-optimised generator at each site alone, before it is drawn from


class AuditConfig(Strict):
    """How the four approaches are compared."""

    predictors: tuple[str, ...] = ("transformer", "logistic_regression")
    seeds: PositiveInt = 5
    epochs: PositiveInt = 1  # of the transformer (paper, appendix E)
    minimum_positives: PositiveInt = 11  # a group with fewer held-out positives is reported as INSUFFICIENT
    minimum_cell: PositiveInt = 11  # printed counts below it are suppressed
    bootstrap_replicates: PositiveInt = 1000
    confidence: Fraction = 0.95


class NoiseConfig(Strict):
    """How a study with `profile: noise` uses its privacy budget (docs/differential_privacy.md).

    Norms bound what one patient may change, and are part of the plan: they must not be chosen by looking at patients.
    """

    batch_share: Annotated[float, Field(gt=0, le=0.5)] = 0.2  # chance of each patient to be in a step
    steps: PositiveInt = 5  # of a site in a round
    learning_rate: PositiveFloat = 0.03  # in the first round, instead of `training.learning_rate`
    clip: PositiveFloat = 0.02  # L2 norm of a patient's gradient
    counts_share: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of epsilon, that counts alone would cost
    counted_every: PositiveInt = 8  # rounds of the fairsynth arm between two counts of what the model predicts
    codes_norm: PositiveFloat = 4.0  # of a patient's codes, one each, as the site proposes codes
    tokens_norm: PositiveFloat = 8.0  # of how often each token occurs in a patient, for base rates at home
    counts_norm: PositiveFloat = 40.0  # of a patient's P, S and TP, where the objective's target is codes


class PrivacyConfig(Strict):
    """What the server may see of one site (docs/masking.md, docs/differential_privacy.md).

    exact   sums of all sites, masked so that nobody can take them apart; they are the plain sums, bit for bit
    noise   such sums too, in which each site's share has noise: (epsilon, delta) for one patient, against everyone
    plain   every site's numbers, as they are

    Where that leaves a site's numbers open to someone, `agreement` must name the document that allows it: with `plain`;
    with `exact` and two sites, of which each can subtract its own numbers from the sum; with `exact` where
    `minimum_contributing` is below 3. Two sites that name no profile and no agreement get `noise`.
    """

    profile: Literal["exact", "noise", "plain"] = "exact"
    agreement: str = Field(default="", max_length=200)
    minimum_group: PositiveInt = 11  # a group with fewer training patients at all sites together is left out
    minimum_contributing: PositiveInt = 3  # and one that fewer sites have patients of; of no use under noise
    epsilon: PositiveFloat = 3.0  # of one patient of a site, over all that the study releases; under noise
    delta: Annotated[float, Field(gt=0, lt=1e-3)] = 1e-6
    noise: NoiseConfig = NoiseConfig()

    @property
    def masked(self) -> bool:
        """Whether sums alone leave the sites."""
        return self.profile != "plain"

    @property
    def noised(self) -> bool:
        """Whether these sums have noise."""
        return self.profile == "noise"

    def problem(self, sites: int) -> str:
        """What is wrong with this among so many sites; empty where nothing is."""
        if self.noised:
            return "" if sites > 1 else "`profile: noise` is for studies of two sites or more"
        if self.agreement or sites == 1:  # of one site there is no study that others could see
            return ""
        if not self.masked:
            return "`profile: plain` shows every site's counts and weights to the server: name the `agreement`"
        if sites < MINIMUM_SITES:
            return (
                f"a sum of {sites} sites hides nothing from a site that subtracts its own numbers: use "
                "`profile: noise`, name the `agreement` under which these sites may know each other's sums, or find a "
                "third site"
            )
        if self.minimum_contributing < MINIMUM_SITES:
            return "`minimum_contributing` below 3 shows sites each other's groups: name the `agreement`"
        return ""

    def unbounded(self, training: TrainingConfig, augmentation: AugmentationConfig) -> str:
        """What of a study would leave the sites without noise, under noise; empty where nothing would."""
        asked = {
            "`training.primed`": training.primed,
            "`augmentation.candidates: taught`": augmentation.candidates == "taught",
            "`augmentation.home_rounds`": augmentation.home_rounds > 0,
        }
        found = [name for name, is_asked in asked.items() if is_asked and self.noised]
        return f"under `profile: noise` nothing bounds what one patient changes by {', '.join(found)}" if found else ""

    @classmethod
    def for_sites(cls, given: Any, sites: int) -> Any:
        """`given`, as a study file has it, with the profile that two sites have where they name none."""
        named = dict(given) if isinstance(given, Mapping) else {}
        if sites == 2 and isinstance(given, Mapping | None) and not {"profile", "agreement"} & set(named):
            return {**named, "profile": "noise"}
        return given


MINIMUM_SITES = 3  # below it a sum hides nothing from its own sites


def required_problem(required: Sequence[SiteId], *, roster: Sequence[SiteId], quorum: int) -> str:
    """What is wrong with the sites that must be there; empty where nothing is."""
    if len(set(required)) != len(required):
        return "a site is named twice in `required`"
    if unknown := [site for site in required if site not in roster]:
        return f"required site {unknown[0]!r} is not among the study's sites"
    if len(required) > quorum:
        return f"`required` names {len(required)} sites, more than the quorum of {quorum}: raise `quorum`"
    return ""


class StudyPlan(Strict):
    """What every site of a study agrees on: no path, nothing of one site alone. Its hash names the study."""

    schema_: Literal["fairsynth.plan/1"] = Field(default="fairsynth.plan/1", alias="schema")
    name: Name
    seed: int = Field(ge=0, lt=2**53)
    roster: tuple[SiteId, ...] = Field(min_length=1)
    quorum: PositiveInt
    # sites of the quorum without which the study stops; left out of what is written where it is empty, so that plans
    # which name none keep the hash that they had before there was this key
    required: tuple[SiteId, ...] = Field(default=(), exclude_if=lambda sites: not sites)
    task: TaskConfig
    split: SplitConfig
    groups: GroupsConfig
    vocabulary: VocabularyConfig
    objective: ObjectiveConfig
    generator: GeneratorConfig
    training: TrainingConfig
    augmentation: AugmentationConfig
    audit: AuditConfig
    privacy: PrivacyConfig

    @model_validator(mode="after")
    def _present(self) -> Self:
        if problem := required_problem(self.required, roster=self.roster, quorum=self.quorum):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _private(self) -> Self:
        if problem := self.privacy.problem(len(self.roster)):
            raise ValueError(f"privacy: {problem}")
        if self.privacy.masked and self.training.wire != "float32":
            raise ValueError("privacy: masked weights travel in 64 bits: `training.wire` must be float32")
        if self.privacy.masked and self.quorum < len(self.roster):
            raise ValueError("privacy: a masked sum is of all sites or of none: `quorum` must be their number")
        if unbounded := self.privacy.unbounded(self.training, self.augmentation):
            raise ValueError(f"privacy: {unbounded}")
        return self
