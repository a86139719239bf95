"""A site's noise in one study: charged before it is drawn, drawn once, given again ever after.

In:  the site's folder, the plan, exact sums with their sensitivity.   Out: noised sums, keys for training;
`noise.json`, `budget.jsonl` and `drawn.jsonl` in the folder.
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
from fairsynth.governance.budget import Budget, DpSgd, Limit
from fairsynth.governance.drawn import Drawn
from fairsynth.governance.noise import discrete_gaussian
from fairsynth.governance.policy import SitePolicy
from fairsynth.schemas import IntArray

NAME = "noise.json"


class Settled(Strict):
    """`noise.json`: the noise of the study that the site takes part in."""

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
        settled = _read(root)
        if settled is None or settled.plan_sha256 != plan_sha256(plan):
            found = releases_of(plan)
            settled = Settled(
                plan_sha256=plan_sha256(plan),
                ratio=found.ratio,
                chance=found.chance,
                noise_multiplier=found.training.noise_multiplier,
            )
            artefacts.write_json(root / NAME, settled.model_dump(mode="json"))
        household = cls.open(root, plan, policy=policy)
        household.budget.refuse_unless(household.releases.by_label.values(), plan_sha256=household.study)
        return household

    @classmethod
    def open(cls, root: Path, plan: StudyPlan, *, policy: SitePolicy) -> Household:
        """The noise that enrolment settled. Raises ArtefactError when it settled none for this plan."""
        settled = _read(root)
        if settled is None or settled.plan_sha256 != plan_sha256(plan):
            raise ArtefactError.of("no noise settled for this study", where=str(root / NAME), do="enrol first")
        noise = plan.privacy.noise
        training = DpSgd(steps=noise.steps, rate=noise.batch_share, noise_multiplier=settled.noise_multiplier)
        releases = Releases(plan=plan, ratio=settled.ratio, chance=settled.chance, training=training)
        budget = Budget(root, limit=limit_of(policy))
        return cls(releases=releases, study=settled.plan_sha256, budget=budget, drawn=Drawn(root))

    def noised(self, label: str, sums: IntArray, *, sensitivity: float) -> IntArray:
        """`sums`, of which one patient changes at most `sensitivity` (L2, in their units), with the release's noise.

        Raises PolicyRefusal past the budget, or where other sums were released under this label.
        """
        self._charge(label)
        sigma = max(self.releases.ratio * sensitivity, 1.0)
        return self.drawn.noised(self._own(label), sums, draw=partial(discrete_gaussian, sigma=sigma))

    def key(self, label: str, *, given: bytes) -> bytes:
        """The secret key of the training `label` on the request `given`. Raises as `noised`."""
        self._charge(label)
        return self.drawn.secret(self._own(label), given=given)

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
    if not any(kept.values()):
        Budget.begin(root, limit=limit)
    if not kept[draws.NAME] and not Budget(root, limit=limit).entries():  # a crash may have come between the two
        Drawn.begin(root)
    for name in kept:
        if not (root / name).is_file():
            raise ArtefactError.of(
                "missing file", where=name, do="restore it from the backup; a new one would forget what was told"
            )


def _read(root: Path) -> Settled | None:
    path = root / NAME
    if not path.is_file():
        return None
    try:
        return Settled.model_validate(plain_json.read(path))
    except PydanticError:
        raise ArtefactError.of("file does not fit its schema", where=str(path), expected="as it was written") from None
