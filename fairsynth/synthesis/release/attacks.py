"""What an attacker who has the synthetic patients learns of a real one.

In:  `Profiles` of training, held-out and synthetic patients.   Out: figures of each attack, always on members (training
patients) beside others (held out).
Never: a verdict; the anonymeter package, which pins an old numpy. Linkage of two tables is not attacked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from fairsynth.schemas import FloatArray, IntArray
from fairsynth.synthesis.release.chance import Area, Share, Top, area, top
from fairsynth.synthesis.release.distances import common, nearest
from fairsynth.synthesis.release.profiles import BoolArray, Profiles


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Can it be told who was in training? `auc` and `top` of the same scores; n is in both."""

    auc: Area
    top: Top


def membership(members: FloatArray, others: FloatArray, *, share: float, rng: np.random.Generator) -> Membership:
    """The attack with these scores; higher: rather a member."""
    return Membership(auc=area(members, others), top=top(members, others, share=share, rng=rng))


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """Nearest-neighbour adversarial accuracy (Yale et al. 2020) of synthetic patients against n others and n members.

    0.5: cannot be told apart. `difference` is that of others minus that of members, `error` its standard error.
    """

    others: float
    members: float
    difference: float
    error: float
    patients: int


def adversary(train: Profiles, held_out: Profiles, synthetic: Profiles, *, rng: np.random.Generator) -> Adversary:
    """The same number of each side, drawn without repeats; a patient is not its own neighbour, by index."""
    n = min(len(train), len(held_out), len(synthetic))
    members, others, new = (part.take(np.sort(rng.permutation(len(part))[:n])) for part in (train, held_out, synthetic))
    own = nearest(new, new, themselves=True).jaccard
    parts = [_told_apart(real, new, own) for real in (others, members)]
    (other_real, other_new), (member_real, member_new) = parts
    paired = other_new - member_new
    spread = other_real.var() / n + member_real.var() / n + paired.var() / n
    accuracy = [float(real.mean() + made.mean()) / 2 for real, made in parts]
    return Adversary(
        others=accuracy[0],
        members=accuracy[1],
        difference=accuracy[0] - accuracy[1],
        error=float(np.sqrt(spread)) / 2,
        patients=n,
    )


def _told_apart(real: Profiles, new: Profiles, own: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(n,) of each real and each synthetic patient, whether its nearest of its own kind is nearer than of the other."""
    among = nearest(real, real, themselves=True).jaccard
    to_new, to_real = nearest(real, new).jaccard, nearest(new, real).jaccard
    return (to_new > among).astype(np.float64), (to_real > own).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Guessed:
    """One secret code: of the patients who have it, those of whom the attacker says so."""

    code: int
    attack: Share  # members
    control: Share  # others
    p: float  # one-sided, Fisher's exact test


def attribute_inference(
    train: Profiles, held_out: Profiles, synthetic: Profiles, *, secrets: IntArray, common_share: float
) -> tuple[Guessed, ...]:
    """The attacker knows a patient's group, sex, age and common codes, takes the nearest synthetic patient, and says
    that the patient has the secret code if that one has it.

    Codes are known to the attacker where `common_share` of training patients have them and they are no secret.
    """
    known = np.flatnonzero(np.asarray(train.content.mean(axis=0)).ravel() >= common_share)
    known = np.setdiff1d(known, secrets)
    said = [_said(part, synthetic, known=known, secrets=secrets) for part in (train, held_out)]
    has = [np.asarray(part.content[:, secrets].toarray() > 0) for part in (train, held_out)]
    found = []
    for place, code in enumerate(secrets):
        attack, control = (
            Share(hits=int((one[:, place] & own[:, place]).sum()), total=int(own[:, place].sum()))
            for one, own in zip(said, has, strict=True)
        )
        table = np.array([[share.hits, share.total - share.hits] for share in (attack, control)])
        p = float(stats.fisher_exact(table, alternative="greater").pvalue)
        found.append(Guessed(code=int(code), attack=attack, control=control, p=p))
    return tuple(found)


def _said(real: Profiles, synthetic: Profiles, *, known: IntArray, secrets: IntArray) -> BoolArray:
    """(B, S) whether the synthetic patient nearest in what is known has each secret code."""
    own, others = (sparse.csr_array(sparse.hstack([part.person, part.content[:, known]])) for part in (real, synthetic))
    sizes = np.diff(others.indptr)[None, :]
    closest = np.zeros(len(real), dtype=np.int64)
    for rows, shared in common(own, others):
        closest[rows] = (sizes - 2 * shared).argmin(axis=1)  # Hamming, but for the patient's own size
    return np.asarray(synthetic.content[closest][:, secrets].toarray() > 0)


def usual_secrets(train: Profiles, *, number: int, common_share: float, rare_support: int) -> IntArray:
    """The codes held most often among those that are not common: the secrets where nobody names any."""
    support = np.asarray(train.content.sum(axis=0)).ravel()
    allowed = np.flatnonzero((support >= rare_support) & (support < common_share * len(train)))
    return np.sort(allowed[np.argsort(-support[allowed], kind="stable")][:number]).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Singled:
    """Predicates that hold of exactly one patient, of as many members as others."""

    attack: Share
    control: Share
    p: float  # one-sided, exact McNemar test on the predicates
    patients: int


def singling_out(
    train: Profiles, held_out: Profiles, synthetic: Profiles, *, predicates: int, codes: int, rng: np.random.Generator
) -> Singled:
    """The attacker takes a synthetic patient's `codes` rarest codes, group, sex and age as a predicate, keeps those
    that hold of one synthetic patient alone, and bets that one real patient is alone with it too."""
    n = min(len(train), len(held_out))
    members, others = (part.take(np.sort(rng.permutation(len(part))[:n])) for part in (train, held_out))
    chosen = synthetic.take(np.sort(rng.permutation(len(synthetic))[:predicates]))
    wanted = _predicates(chosen, synthetic, codes=codes)
    wanted = wanted[_holding(wanted, synthetic) == 1]
    alone = [_holding(wanted, part) == 1 for part in (members, others)]
    only_members, only_others = int((alone[0] & ~alone[1]).sum()), int((alone[1] & ~alone[0]).sum())
    either = only_members + only_others
    p = float(stats.binomtest(only_members, either, 0.5, alternative="greater").pvalue) if either else 1.0
    attack, control = (Share(hits=int(hits.sum()), total=wanted.shape[0]) for hits in alone)
    return Singled(attack=attack, control=control, p=p, patients=n)


def _predicates(chosen: Profiles, synthetic: Profiles, *, codes: int) -> sparse.csr_array:
    """(N, M + C) 0/1, what must hold."""
    support = np.asarray(synthetic.content.sum(axis=0)).ravel()
    rows = np.repeat(np.arange(len(chosen)), chosen.sizes)
    order = np.lexsort((support[chosen.content.indices], rows))
    place = np.arange(len(rows)) - chosen.content.indptr[rows]
    kept = order[place < codes]
    rarest = sparse.csr_array(
        (np.ones(len(kept), dtype=np.float32), (rows[kept], chosen.content.indices[kept])), shape=chosen.content.shape
    )
    return sparse.csr_array(sparse.hstack([chosen.person, rarest]))


def _holding(wanted: sparse.csr_array, patients: Profiles) -> IntArray:
    """(N,) of how many patients each predicate holds."""
    everything = sparse.csr_array(sparse.hstack([patients.person, patients.content]))
    sizes = np.asarray(wanted.sum(axis=1)).ravel()
    found = np.zeros(wanted.shape[0], dtype=np.int64)
    for rows, shared in common(wanted, everything):
        found[rows] = (shared >= sizes[rows, None]).sum(axis=1)
    return found
