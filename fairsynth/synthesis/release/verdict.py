"""All gates -> one verdict.

In:  `Evidence`: training, held-out and synthetic records, and what was found in the files.
Out: `Verdict` with every gate's result, for the officer; `Outside`, the little that may leave the site.
Never: files; validation patients: training chooses by them, so they are not unseen. Members are training patients,
others are held-out patients, and only those with enough codes to be told apart are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from fairsynth.config import Strict
from fairsynth.schemas import FloatArray, IntArray
from fairsynth.seeds import numpy_stream
from fairsynth.synthesis.release import attacks, gates
from fairsynth.synthesis.release.chance import Share
from fairsynth.synthesis.release.distances import nearest
from fairsynth.synthesis.release.gates import Copies, GateResult, Outcome
from fairsynth.synthesis.release.profiles import BoolArray, Profiles, clinical_codes, profiles
from fairsynth.synthesis.release.rules import ReleaseRules
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

SMALL_GROUPS = "small groups"
_TOO_FEW = 50  # patients of a side: below, an AUC and a rate at 1 % are not judged


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the gate looks at.

    writable   (C,) codes that the files can say; None: all
    secrets    codes that must not be guessed, beside the usual ones
    canaries   the codes of each planted patient
    problems   what is wrong with the files (format.py); None: there are none
    rare       rare source codes of the files
    """

    train: Records
    held_out: Records
    synthetic: Records
    vocabulary: Vocabulary
    seed: int
    writable: BoolArray | None = None
    secrets: tuple[str, ...] = ()
    canaries: tuple[tuple[str, ...], ...] = ()
    problems: tuple[str, ...] | None = None
    rare: int = 0


class Verdict(Strict):
    """May it leave? `results` in the order of the gates; `groups` the results of G1 to G4 in each group."""

    results: tuple[GateResult, ...]
    groups: dict[str, tuple[GateResult, ...]]
    synthetic: int
    rules_sha256: str

    @property
    def outcome(self) -> Outcome:
        """FAIL if a gate failed, INCONCLUSIVE if one could not tell; both block."""
        found = {result.verdict for result in self.results}
        worst = (Outcome.failed, Outcome.inconclusive)
        return next((outcome for outcome in worst if outcome in found), Outcome.passed)

    @property
    def blocking(self) -> tuple[GateResult, ...]:
        """The gates that say no."""
        return tuple(one for one in self.results if one.verdict in (Outcome.failed, Outcome.inconclusive))

    @property
    def not_run(self) -> tuple[str, ...]:
        """What was not tested."""
        return tuple(f"{one.gate} {one.title}" for one in self.results if one.verdict is Outcome.not_run)


class Outside(Strict):
    """All that may be said of a verdict outside the site: a gate that tells more can be asked who was in training."""

    verdict: Literal["PASS", "FAIL"]
    members: str  # training patients compared, in bands
    others: str


def outside(verdict: Verdict) -> Outside:
    """PASS or FAIL, and bands; what could not be told is a FAIL."""
    numbers = verdict.results[0].numbers
    said: Literal["PASS", "FAIL"] = "PASS" if verdict.outcome is Outcome.passed else "FAIL"
    return Outside(verdict=said, members=_band(numbers["members"]), others=_band(numbers["others"]))


def _band(count: float | int | None) -> str:
    bands = ((20_000, "20,000 or more"), (5_000, "5,000 to 19,999"), (1_130, "1,130 to 4,999"))
    return next((text for least, text in bands if (count or 0) >= least), "fewer than 1,130")


def examine(evidence: Evidence, rules: ReleaseRules) -> Verdict:
    """Run every gate. The same evidence and rules give the same verdict."""
    rng = partial(numpy_stream, evidence.seed, "release")
    real = Real.of(evidence, rules)
    levels = rules.levels
    overall = (
        gates.exact_copies(real.copies(), rules, level=levels.copies),
        gates.near_copies(*real.near(), rules, level=levels.near),
        *_memberships(real, rules, levels=(levels.auc, levels.top), rng=rng("top")),
    )
    groups = _groups(real, rules, groups=evidence.vocabulary.groups, rng=rng("groups"))
    results = (
        gates.inputs(len(real.members), len(real.others), rules),
        *overall,
        *_attacked(real, evidence, rules),
        gates.rare_codes(_rare(evidence, rules), rules),
        gates.canaries(len(evidence.canaries), _emitted(evidence)),
        gates.by_group(groups),
        gates.format_checked(evidence.problems),
    )
    return Verdict(results=results, groups=groups, synthetic=len(evidence.synthetic), rules_sha256=rules.sha256)


@dataclass(frozen=True, kw_only=True, eq=False)
class Real:
    """Members and others that can be told apart, the synthetic patients, and how near the nearest of those is."""

    members: Profiles
    others: Profiles
    synthetic: Profiles
    traits: tuple[Traits, Traits]  # of members and of others

    @classmethod
    def of(cls, evidence: Evidence, rules: ReleaseRules) -> Real:
        """The real patients of `evidence` with enough codes, each compared with every synthetic patient."""
        train, held_out, synthetic = (
            profiles(part, vocabulary=evidence.vocabulary)
            for part in (evidence.train, evidence.held_out, evidence.synthetic)
        )
        everyone = Counter((*train.keys, *held_out.keys))
        made = set(synthetic.keys)
        full = [part.take(np.flatnonzero(part.sizes >= rules.minimum_codes)) for part in (train, held_out)]
        traits = [Traits.of(part, synthetic, everyone=everyone, made=made, rules=rules) for part in full]
        return cls(members=full[0], others=full[1], synthetic=synthetic, traits=(traits[0], traits[1]))

    def part(self, groups: Sequence[int]) -> Real:
        """The real patients of these groups, beside all synthetic ones."""
        rows = [np.flatnonzero(np.isin(side.group, groups)) for side in (self.members, self.others)]
        return Real(
            members=self.members.take(rows[0]),
            others=self.others.take(rows[1]),
            synthetic=self.synthetic,
            traits=(self.traits[0].take(rows[0]), self.traits[1].take(rows[1])),
        )

    def copies(self) -> Copies:
        """Patients whose record a synthetic one repeats."""
        repeated = [_share(one.repeated) for one in self.traits]
        unique = [_share(one.repeated & one.unique) for one in self.traits]
        return Copies(members=repeated[0], others=repeated[1], unique_members=unique[0], unique_others=unique[1])

    def near(self) -> tuple[Share, Share]:
        """Patients with a synthetic near double."""
        return _share(self.traits[0].near), _share(self.traits[1].near)

    @property
    def least(self) -> int:
        """Patients of the smaller side."""
        return min(len(self.members), len(self.others))


@dataclass(frozen=True, kw_only=True, eq=False)
class Traits:
    """(B,) of each real patient: is the record repeated, is it long and unique at the site, is a synthetic one near,
    and minus the Jaccard distance to the nearest."""

    repeated: BoolArray
    unique: BoolArray
    near: BoolArray
    closeness: FloatArray

    @classmethod
    def of(
        cls,
        real: Profiles,
        synthetic: Profiles,
        *,
        everyone: Counter[bytes],
        made: set[bytes],
        rules: ReleaseRules,
    ) -> Traits:
        """The traits of `real`; `everyone` are all real records, `made` the synthetic ones."""
        found = nearest(real, synthetic)
        return cls(
            repeated=np.array([key in made for key in real.keys], dtype=np.bool_),
            unique=np.array([everyone[key] == 1 for key in real.keys], dtype=np.bool_)
            & (real.sizes >= rules.unmistakable_codes),
            near=found.hamming <= rules.near * real.sizes,
            closeness=-found.jaccard,
        )

    def take(self, rows: IntArray) -> Traits:
        """Those of the patients at `rows`."""
        return Traits(
            repeated=self.repeated[rows], unique=self.unique[rows], near=self.near[rows], closeness=self.closeness[rows]
        )


def _memberships(
    real: Real, rules: ReleaseRules, *, levels: tuple[float, float], rng: np.random.Generator, everyone: bool = True
) -> Iterator[GateResult]:
    """G3 and G4, where there is somebody to judge by."""
    if real.least < _TOO_FEW:
        return
    scores = (one.closeness for one in real.traits)
    found = attacks.membership(*scores, share=rules.false_positive_share, rng=rng)
    yield gates.membership_auc(found, rules, level=levels[0], everyone=everyone)
    yield gates.membership_top(found, rules, level=levels[1])


def _groups(
    real: Real, rules: ReleaseRules, *, groups: Sequence[str], rng: np.random.Generator
) -> dict[str, tuple[GateResult, ...]]:
    """G1 to G4 of each group with enough patients, and of all others together."""
    counts = [np.bincount(side.group, minlength=len(groups)) for side in (real.members, real.others)]
    large = [group for group in range(len(groups)) if min(count[group] for count in counts) >= rules.minimum_group]
    small = [group for group in range(len(groups)) if group not in large and sum(count[group] for count in counts)]
    parts = {groups[group]: real.part([group]) for group in large}
    if small:
        parts[SMALL_GROUPS] = real.part(small)
    level = rules.levels.groups / (4 * max(len(parts), 1))
    return {
        name: (
            gates.exact_copies(part.copies(), rules, level=level),
            gates.near_copies(*part.near(), rules, level=level),
            *_memberships(part, rules, levels=(level, level), rng=rng, everyone=False),
        )
        for name, part in parts.items()
    }


def _attacked(real: Real, evidence: Evidence, rules: ReleaseRules) -> tuple[GateResult, ...]:
    """G5 to G7."""
    rng = partial(numpy_stream, evidence.seed, "release")
    full = real.synthetic.take(np.flatnonzero(real.synthetic.sizes >= rules.minimum_codes))
    if min(real.least, len(full)) < _TOO_FEW:
        reason = f"fewer than {_TOO_FEW} patients of a side"
        titles = (("G5", "nearest neighbours"), ("G6", "attribute inference"), ("G7", "singling out"))
        return tuple(
            GateResult(gate=gate, title=title, verdict=Outcome.inconclusive, reason=reason) for gate, title in titles
        )
    apart = attacks.adversary(real.members, real.others, full, rng=rng("nnaa"))
    guessed = attacks.attribute_inference(
        real.members,
        real.others,
        real.synthetic,
        secrets=_secrets(real.members, evidence, rules),
        common_share=rules.common_share,
    )
    singled = attacks.singling_out(
        real.members,
        real.others,
        full,
        predicates=rules.predicates,
        codes=rules.predicate_codes,
        rng=rng("predicates"),
    )
    return (
        gates.adversarial_accuracy(apart, rules, level=rules.levels.nnaa),
        gates.attributes(guessed, rules, level=rules.levels.attribute),
        gates.singled_out(singled, rules, level=rules.levels.singling_out),
    )


def _secrets(members: Profiles, evidence: Evidence, rules: ReleaseRules) -> IntArray:
    """The usual ones, and those that were named."""
    usual = attacks.usual_secrets(
        members, number=rules.sensitive_codes, common_share=rules.common_share, rare_support=rules.rare_support
    )
    codes = evidence.vocabulary.codes
    return np.union1d(usual, [codes.index(name) for name in evidence.secrets if name in codes]).astype(np.int64)


def _rare(evidence: Evidence, rules: ReleaseRules) -> int:
    """Codes of synthetic patients that few training patients have: rolled up, if files say them, and the source's."""
    train, synthetic = (
        np.diff(profiles(part, vocabulary=evidence.vocabulary).content.tocsc().indptr)
        for part in (evidence.train, evidence.synthetic)
    )
    said = clinical_codes(evidence.vocabulary)
    if evidence.writable is not None:
        said &= evidence.writable
    return evidence.rare + int(((synthetic > 0) & (train < rules.rare_support) & said).sum())


def _emitted(evidence: Evidence) -> int:
    """Canaries of which a synthetic patient has every code; one with a code that no token says cannot come out."""
    content = profiles(evidence.synthetic, vocabulary=evidence.vocabulary).content.tocsc()
    codes = {name: place for place, name in enumerate(evidence.vocabulary.codes)}
    known = [[codes[name] for name in canary] for canary in evidence.canaries if all(name in codes for name in canary)]
    return sum(bool((content[:, places].sum(axis=1) == len(set(places))).any()) for places in known)


def _share(hits: BoolArray) -> Share:
    return Share(hits=int(hits.sum()), total=len(hits))
