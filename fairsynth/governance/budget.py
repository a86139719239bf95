"""A site's ledger of privacy: what was spent on its patients over all its releases, and what may still be.

In:  the site's limit (epsilon at delta), each release before it happens.   Out: `budget.jsonl`, epsilon so far.
Never: a release that is not on disk in the ledger first; a reset; a patient's value.

Epsilon holds for one patient, added to or left out of this site's data. It is that of all entries together, by the
privacy loss distributions of Google's dp-accounting (Sommer et al. 2019, Koskela et al. 2020); Renyi DP (Mironov 2017),
an upper bound got another way, must not contradict it. Entries of discrete noise are counted as continuous noise of the
same scale, from which they differ by less than the accountant's own rounding where the scale is 1 unit or more.
"""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from fairsynth.errors import ArtefactError, ConfigError, PolicyRefusal
from fairsynth.governance.chained import Chained, Entry

NAME = "budget.jsonl"
ACCOUNTANTS_AGREE = 1.05  # the tight accountant may be this much above the loose one, for its grid
ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512)  # of Renyi divergences; whole ones are summed without a series
GRID = 1e-3  # of privacy losses, rounded up: ten times as fast as the library's 1e-4, epsilon 0.1 % larger at most
BEYOND_REASON = 500.0  # an epsilon above it is not made exact, which would take terabytes


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Noise added once to numbers; `ratio` is its sigma over their L2 sensitivity to one patient."""

    ratio: float
    kind: Literal["gaussian"] = "gaussian"


@dataclass(frozen=True, kw_only=True)
class DpSgd:
    """`steps` of DP-SGD: each patient drawn with chance `rate`, noise of `noise_multiplier` times the clip."""

    steps: int
    rate: float
    noise_multiplier: float
    kind: Literal["dp-sgd"] = "dp-sgd"


@dataclass(frozen=True, kw_only=True)
class Thresholded:
    """A Gaussian on counts whose names are secret too: with `chance` a name shows that one patient alone has.

    The chance is taken off delta (Gopi et al. 2020, arXiv 2002.09745, algorithm 7 and theorem 5.1).
    """

    ratio: float
    chance: float
    kind: Literal["thresholded"] = "thresholded"


Mechanism = Gaussian | DpSgd | Thresholded


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What the site's policy allows over all releases."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < math.inf and 0 < self.delta < 1):
            raise ConfigError.of("not a privacy budget", where="epsilon, delta", expected="epsilon > 0, 0 < delta < 1")


@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """Epsilon by both accountants: `tight` is the one that counts, `renyi` the second opinion."""

    tight: float
    renyi: float


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What the ledger says after a release was charged; `charged` is false where it was already."""

    epsilon: Epsilon
    charged: bool


class Budget:
    """The ledger in a site's folder, under the site's limit."""

    def __init__(self, root: Path, *, limit: Limit) -> None:
        self._file, self.limit = Chained(root / NAME), limit

    @classmethod
    def begin(cls, root: Path, *, limit: Limit) -> Self:
        """A new ledger. Raises ArtefactError when the folder has one."""
        Chained.begin(root / NAME)
        return cls(root, limit=limit)

    def spend(self, label: str, mechanism: Mechanism, *, plan_sha256: str) -> Spent:
        """Charge the release `label`, which may happen once this returns, and not before.

        The same label of the same plan is charged once. Raises PolicyRefusal when the limit would be exceeded, or the
        label was charged for another mechanism; ArtefactError when the ledger is missing or damaged.
        """
        check(mechanism)
        with self._file.appending() as ledger:
            known = _find(ledger.entries, label=label, plan_sha256=plan_sha256)
            if known is not None:
                _refuse_another(known, mechanism, label=label)
                return Spent(epsilon=_told(ledger.entries), charged=False)
            self._refuse_another_delta(ledger.entries)
            before = [_mechanism(entry) for entry in ledger.entries]
            after = epsilon_of([*before, mechanism], delta=self.limit.delta)
            self._refuse_excess(after, label=label)
            ledger.append(self._entry(label, mechanism, plan_sha256=plan_sha256, after=after))
            return Spent(epsilon=after, charged=True)

    def forfeit(self, releases: Mapping[str, Mechanism], *, plan_sha256: str) -> Epsilon:
        """Charge all `releases` of a plan, by label, whether the limit has room or not: they may have happened already,
        unknown to this ledger. What is charged is not charged again. Epsilon of everything then; raises as `spend`.
        """
        for mechanism in releases.values():
            check(mechanism)
        with self._file.appending() as ledger:
            self._refuse_another_delta(ledger.entries)
            known = {entry["label"] for entry in ledger.entries if entry["plan"] == plan_sha256}
            missing = {label: one for label, one in releases.items() if label not in known}
            if not missing:
                return _told(ledger.entries)
            before = [_mechanism(entry) for entry in ledger.entries]
            after = epsilon_of([*before, *missing.values()], delta=self.limit.delta)
            for label, mechanism in missing.items():
                ledger.append(self._entry(label, mechanism, plan_sha256=plan_sha256, after=after))
            return after

    def epsilon(self) -> Epsilon:
        """Of all releases so far. Raises ArtefactError when the ledger is missing or damaged."""
        return epsilon_of([_mechanism(entry) for entry in self._file.read()], delta=self.limit.delta)

    def refuse_unless(self, mechanisms: Iterable[Mechanism], *, plan_sha256: str) -> None:
        """Raise PolicyRefusal where the limit does not leave room for all `mechanisms` of a plan, before it begins.

        What was charged for the plan already is not counted twice. Nothing is charged.
        """
        entries = self._file.read()
        self._refuse_another_delta(entries)
        others = [_mechanism(entry) for entry in entries if entry["plan"] != plan_sha256]
        self._refuse_excess(epsilon_of([*others, *mechanisms], delta=self.limit.delta), label="the whole study")

    def told(self) -> float:
        """Epsilon that the last charge came to, as the ledger has it; 0 before any. Raises as `epsilon` does."""
        return _told(self._file.read()).tight

    def entries(self) -> list[Entry]:
        """What was charged, oldest first: plan, label, mechanism, time."""
        return self._file.read()

    def _entry(self, label: str, mechanism: Mechanism, *, plan_sha256: str, after: Epsilon) -> Entry:
        """A line: the release, and epsilon once it, and what was charged with it, has happened."""
        return {
            "plan": plan_sha256,
            "label": label,
            "mechanism": asdict(mechanism),
            "epsilon": asdict(after),
            "delta": self.limit.delta,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

    def _refuse_another_delta(self, entries: list[Entry]) -> None:
        """Epsilons at two deltas cannot be compared: the ledger of what left would no longer add up to the budget."""
        if entries and entries[-1].get("delta", self.limit.delta) != self.limit.delta:
            raise PolicyRefusal.of(
                "the policy's delta is not that of the budget",
                where=f"policy.yaml  delta {self.limit.delta:g}",
                expected=f"{entries[-1]['delta']:g}, at which this site's releases are charged",
                do="set it back; `epsilon_budget` may be changed at any time",
            )

    def _refuse_excess(self, after: Epsilon, *, label: str) -> None:
        if not after.tight <= self.limit.epsilon:
            raise PolicyRefusal.of(
                "the release would exceed the site's privacy budget",
                where=f"{label}: epsilon {after.tight:.3g} over all releases",
                expected=f"at most {self.limit.epsilon:g} at delta {self.limit.delta:g}",
                do="more noise, fewer releases or steps; or the site's data officer raises the budget",
            )


def epsilon_of(mechanisms: Iterable[Mechanism], *, delta: float) -> Epsilon:
    """Epsilon at `delta` of all `mechanisms` together, in any order; 0 of none.

    Gaussian mechanisms pool exactly: the inverse squares of their ratios add up.
    Raises PolicyRefusal when an accountant gives no number, or the two contradict each other: nothing may be released
    on an epsilon that nobody computed.
    """
    import dp_accounting  # 1 s to import: only where something is spent
    from dp_accounting import pld, rdp

    counted = Counter(mechanisms)
    if not counted:
        return Epsilon(tight=0.0, renyi=0.0)
    left = delta - sum(times * run.chance for run, times in counted.items() if isinstance(run, Thresholded))
    if not left > 0:
        raise PolicyRefusal.of(
            "delta is spent", where=f"delta {delta:g}", expected="more than the chances of all thresholded counts"
        )
    events = [
        dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(run.rate, dp_accounting.GaussianDpEvent(run.noise_multiplier)),
            times * run.steps,
        )
        for run, times in counted.items()
        if isinstance(run, DpSgd)
    ]
    if ratio := _pooled_ratio(counted):
        events.append(dp_accounting.GaussianDpEvent(ratio))
    whole = dp_accounting.ComposedDpEvent(events)
    renyi = float(rdp.RdpAccountant(ORDERS).compose(whole).get_epsilon(left))
    if renyi > BEYOND_REASON:
        return Epsilon(tight=renyi, renyi=renyi)
    found = Epsilon(
        tight=float(pld.PLDAccountant(value_discretization_interval=GRID).compose(whole).get_epsilon(left)), renyi=renyi
    )
    if not (math.isfinite(found.tight) and found.tight <= ACCOUNTANTS_AGREE * renyi + 1e-3):
        raise PolicyRefusal.of(
            "the accountants give no epsilon to rely on",
            where=f"{found.tight:g} and {renyi:g}",
            expected="two numbers that agree",
            do="more noise, or fewer steps",
        )
    return found


def _pooled_ratio(counted: Counter[Mechanism]) -> float:
    """The ratio of one Gaussian mechanism that is all of `counted` together; 0 when there is none."""
    once = (Gaussian, Thresholded)
    total = sum(times / mechanism.ratio**2 for mechanism, times in counted.items() if isinstance(mechanism, once))
    return 1 / math.sqrt(total) if total else 0.0


def check(mechanism: Mechanism) -> None:
    """Raise ConfigError when the numbers of `mechanism` are not those of a mechanism."""
    if isinstance(mechanism, Gaussian | Thresholded):
        good = 0 < mechanism.ratio < math.inf and 0 < getattr(mechanism, "chance", 0.5) < 1
    else:
        good = mechanism.steps >= 1 and 0 < mechanism.rate <= 1 and 0 < mechanism.noise_multiplier < math.inf
    if not good:
        raise ConfigError.of("not a mechanism", where=mechanism.kind, expected="positive numbers, a rate of at most 1")


def _mechanism(entry: Entry) -> Mechanism:
    """The mechanism of a ledger's entry. Raises ArtefactError when this version does not know it."""
    values = entry.get("mechanism", {})
    for kind in (Gaussian, DpSgd, Thresholded):
        if values.get("kind") == kind.kind and set(values) == set(kind.__dataclass_fields__):
            return kind(**values)
    raise ArtefactError.of(
        "entry of an unknown kind",
        where=NAME,
        expected="gaussian, dp-sgd or thresholded",
        do="use the version that wrote it",
    )


def is_known(entry: Entry) -> bool:
    """Whether this version knows the mechanism of a ledger's entry."""
    try:
        _mechanism(entry)
    except ArtefactError:
        return False
    return True


def _told(entries: list[Entry]) -> Epsilon:
    """Epsilon after the last entry, as it was computed when that was charged; 0 of none. Raises ArtefactError."""
    if not entries:
        return Epsilon(tight=0.0, renyi=0.0)
    values = entries[-1].get("epsilon")
    if not isinstance(values, dict) or set(values) != {"tight", "renyi"}:
        raise ArtefactError.of("entry without its epsilon", where=NAME, do="use the version that wrote it")
    return Epsilon(**values)


def _find(entries: list[Entry], *, label: str, plan_sha256: str) -> Entry | None:
    return next((entry for entry in entries if (entry["label"], entry["plan"]) == (label, plan_sha256)), None)


def _refuse_another(known: Entry, mechanism: Mechanism, *, label: str) -> None:
    if _mechanism(known) != mechanism:
        raise PolicyRefusal.of(
            "the release was charged for another mechanism",
            where=label,
            expected=str(_mechanism(known)),
            do="use a new label; what was released under this one stays charged",
        )
