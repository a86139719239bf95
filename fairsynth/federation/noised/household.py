"""A site's noise in one study: charged before it is drawn, drawn once, given again ever after.

In:  the site's folder, the plan, exact sums with their sensitivity.   Out: noised sums, keys for training;
`noise/<plan>.json`, `budget.jsonl` and `drawn.jsonl` in the folder.
Never: noise that was not charged; a second draw; an exact sum on disk.

A study that starts again under the same plan gets the same noise, and is charged nothing more. Where a patient was
added in between, the numbers differ, and the site refuses: that is another study.
"""

from __future__ import annotations

import hmac
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import PositiveFloat
from pydantic import ValidationError as PydanticError

from fairsynth import artefacts, plain_json
from fairsynth.config import Strict, StudyPlan
from fairsynth.errors import ArtefactError, PolicyRefusal
from fairsynth.federation.noised.releases import Releases, releases_of
from fairsynth.federation.plans import plan_sha256
from fairsynth.governance import budget as budgets
from fairsynth.governance import drawn as draws
from fairsynth.governance import ledger
from fairsynth.governance.budget import Budget, DpSgd, Limit
from fairsynth.governance.drawn import Drawn
from fairsynth.governance.noise import discrete_gaussian
from fairsynth.governance.policy import SitePolicy
from fairsynth.schemas import IntArray

FOLDER = "noise"  # a file for each study
SLACK = (
    1e-3  # relative, of a sensitivity: what floating-point sums of other patients may move with one more beside them
)


class Settled(Strict):
    """`noise/<plan>.json`: the noise of a study that the site takes part in."""

    plan_sha256: str
    ratio: PositiveFloat
    chance: PositiveFloat
    noise_multiplier: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Household:
    """What one site may still tell, and what it told."""

    releases: Releases
    study: str
    budget: Budget
    drawn: Drawn

    @classmethod
    def begin(cls, root: Path, plan: StudyPlan, *, policy: SitePolicy) -> Household:
        """Settle the study's noise. Raises PolicyRefusal where the site's budget has no room for the whole study."""
        _begin_files(root, limit=limit_of(policy))
        path = _path(root, plan)
        if not path.is_file():
            found = releases_of(plan)
            settled = Settled(
                plan_sha256=plan_sha256(plan),
                ratio=found.ratio,
                chance=found.chance,
                noise_multiplier=found.training.noise_multiplier,
            )
            path.parent.mkdir(mode=0o700, exist_ok=True)
            artefacts.write_json(path, settled.model_dump(mode="json"))
        household = cls.open(root, plan, policy=policy)
        household.budget.refuse_unless(household.releases.by_label.values(), plan_sha256=household.study)
        return household

    @classmethod
    def open(cls, root: Path, plan: StudyPlan, *, policy: SitePolicy) -> Household:
        """The noise that enrolment settled. Raises ArtefactError when it settled none for this plan."""
        settled = _read(_path(root, plan))
        if settled.plan_sha256 != plan_sha256(plan):
            raise ArtefactError.of("noise of another study", where=str(_path(root, plan)), do="restore the file")
        noise = plan.privacy.noise
        training = DpSgd(steps=noise.steps, rate=noise.batch_share, noise_multiplier=settled.noise_multiplier)
        releases = Releases(plan=plan, ratio=settled.ratio, chance=settled.chance, training=training)
        budget = Budget(root, limit=limit_of(policy))
        return cls(releases=releases, study=settled.plan_sha256, budget=budget, drawn=Drawn(root))

    def noised(self, label: str, sums: IntArray, *, sensitivity: float, asked: str = "") -> IntArray:
        """`sums`, of which one patient changes at most `sensitivity` (L2, in their units), with the release's noise.

        `asked` names what the server chose of the question, such as a model or a vocabulary. Raises PolicyRefusal past
        the budget, or where another question or other sums were answered under this label.
        """
        self._charge(label)
        draw = partial(discrete_gaussian, sigma=max(self.deviation(sensitivity), 1.0))
        return self.drawn.noised(self._own(label), sums, draw=draw, asked=asked.encode())

    def deviation(self, sensitivity: float) -> float:
        """Standard deviation of the noise on sums of this L2 sensitivity, in their units."""
        return self.releases.ratio * sensitivity * (1 + SLACK)

    def key(self, label: str, *, given: bytes) -> bytes:
        """The secret key of the training `label` on the request `given`. Raises as `noised`."""
        self._charge(label)
        return self.drawn.secret(self._own(label), given=given)

    def hold_to(self, data: str) -> None:
        """Bind the study to the data of that hash. Raises PolicyRefusal when it began with others.

        The same noise on two states of the data would show their difference.
        """
        self.drawn.secret(self._own("data"), given=data.encode())

    def commitment(self, text: str) -> str:
        """64 hexadecimal digits that stand for `text` in this study, and tell nobody else what it is."""
        key = self.drawn.secret(self._own("commitment"), given=b"")
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    def _charge(self, label: str) -> None:
        mechanism = self.releases.by_label.get(label)
        if mechanism is None:
            raise PolicyRefusal.of("a release that the plan does not have", where=label, expected="one of the plan's")
        self.budget.spend(label, mechanism, plan_sha256=self.study)

    def _own(self, label: str) -> str:
        return f"{self.study} {label}"


def limit_of(policy: SitePolicy) -> Limit:
    """What the site's policy allows over all its studies. Raises PolicyRefusal where it names no budget."""
    if policy.epsilon_budget is None or not math.isfinite(policy.epsilon_budget):
        raise PolicyRefusal.of(
            "a study with noise at a site without a privacy budget",
            where="policy.yaml  epsilon_budget",
            expected="epsilon that one patient may be charged over all studies, e.g. 3.0",
            do="the site's data officer sets it; docs/differential_privacy.md says what it means",
        )
    return Limit(epsilon=policy.epsilon_budget, delta=policy.delta)


def _begin_files(root: Path, *, limit: Limit) -> None:
    """Begin ledger and journal of a site that has told nothing yet. Raises ArtefactError where one of them was lost."""
    kept = {name: (root / name).exists() for name in (budgets.NAME, draws.NAME)}
    told = (root / ledger.NAME).is_file() and any(entry.epsilon for entry in ledger.read(root))
    if not any(kept.values()) and not told:
        Budget.begin(root, limit=limit)
    if (
        not kept[draws.NAME] and not told and not Budget(root, limit=limit).entries()
    ):  # a crash may have come between the two
        Drawn.begin(root)
    for name in kept:
        if not (root / name).is_file():
            raise ArtefactError.of(
                "missing file",
                where=name,
                do="fairsynth restore (docs/operations.md); a new one would forget what was told",
            )


def _path(root: Path, plan: StudyPlan) -> Path:
    return root / FOLDER / f"{plan_sha256(plan)}.json"


def _read(path: Path) -> Settled:
    if not path.is_file():
        raise ArtefactError.of("no noise settled for this study", where=str(path), do="enrol first")
    try:
        return Settled.model_validate(plain_json.read(path))
    except PydanticError:
        raise ArtefactError.of("file does not fit its schema", where=str(path), expected="as it was written") from None
