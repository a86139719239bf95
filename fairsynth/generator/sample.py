"""New patients, drawn from the model exactly and in parallel.

In:  weights and, per patient, a condition on group, label, sex and age band.   Out: `Records`.
Never: files, global random state, a patient that depends on the patients sampled beside it.

Each (patient, visit, token) has its own uniform u, a function of the seed alone, and token k is on iff its logit
exceeds logit(u_k). The head is strictly autoregressive, so x = [logits(x) > logit(u)] has exactly one solution, the
sequential sample; iterating from x = 0 settles at least one more token a pass and stops there.

Structure that records have by definition is imposed, given what the model says of the rest: the label visit holds
context tokens only, other visits codes and `end` only; of the groups, of the sexes and of the ages exactly one is on.
For such a block the model's Bernoulli draws run in order until the first that fires, under the condition that at
least one does, P(first is k | any) = p_k prod_{j<k} (1 - p_j) / (1 - prod_j (1 - p_j)); later ones are forced off. A
condition imposes the group, label, sex or age token, and what follows is drawn given it.

The same seed gives the same patient whatever stands beside it in a batch, up to float rounding: a token can differ
only where its uniform lies within rounding (about 1e-6) of its probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fairsynth.config import GeneratorConfig
from fairsynth.generator.model import Halo, build
from fairsynth.schemas import Arrays, IntArray
from fairsynth.seeds import stream
from fairsynth.visits.layout import TokenLayout, Vocabulary
from fairsynth.visits.records import Records

FREE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """(B,) each: index of the group, the label, index of the sex and of the age band that a patient must have.

    -1 leaves it to the model, None leaves it for everyone. Tokens are drawn in order, so that what is given does not
    change the chances of a free token before it.
    """

    group: IntArray
    label: IntArray
    sex: IntArray | None = None
    age: IntArray | None = None

    def __len__(self) -> int:
        return len(self.group)

    def part(self, rows: slice) -> Conditions:
        """The conditions of the patients `rows`."""
        return Conditions(
            group=self.group[rows],
            label=self.label[rows],
            sex=None if self.sex is None else self.sex[rows],
            age=None if self.age is None else self.age[rows],
        )

    @classmethod
    def free(cls, number: int) -> Conditions:
        """`number` patients without a condition."""
        return cls(group=np.full(number, FREE, dtype=np.int64), label=np.full(number, FREE, dtype=np.int64))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """New patients, and how many of them were ended by `maximum_visits` rather than by the model."""

    records: Records
    capped: int


def sample(
    weights: Arrays,
    *,
    vocabulary: Vocabulary,
    config: GeneratorConfig,
    conditions: Conditions,
    seed: int,
    batch_size: int = 256,
) -> Records:
    """One patient for each of `conditions`, in their order. Raises ProtocolError when the weights do not fit."""
    model = build(weights, vocabulary=vocabulary, config=config)
    return draw(model, layout=vocabulary.layout, conditions=conditions, seed=seed, batch_size=batch_size).records


@torch.inference_mode()
def draw(model: Halo, *, layout: TokenLayout, conditions: Conditions, seed: int, batch_size: int = 256) -> Sampled:
    """One patient for each of `conditions`, in their order, from a model in memory."""
    parts = list(stream_patients(model, layout=layout, conditions=conditions, seed=seed, batch_size=batch_size))
    records = [part.records for part in parts] or [_Sampler(model=model, layout=layout, seed=seed).records(0)]
    return Sampled(records=Records.concatenate(records), capped=sum(part.capped for part in parts))


@torch.inference_mode()
def stream_patients(
    model: Halo, *, layout: TokenLayout, conditions: Conditions, seed: int, batch_size: int = 256
) -> Iterator[Sampled]:
    """The patients of `conditions` in their order, batch by batch: memory does not grow with their number."""
    for start in range(0, len(conditions), batch_size):
        sampler = _Sampler(model=model, layout=layout, seed=seed)
        part = conditions.part(slice(start, start + batch_size))
        sampler.run(first=start, conditions=part)
        yield Sampled(records=sampler.records(len(part)), capped=sampler.capped)


@dataclass(kw_only=True, eq=False)
class _Sampler:
    """Collects (patient, visit, token) rows; visit 0 is the label visit."""

    model: Halo
    layout: TokenLayout
    seed: int
    rows: list[IntArray] = field(default_factory=list)
    visits: list[IntArray] = field(default_factory=list)
    capped: int = 0

    def run(self, *, first: int, conditions: Conditions) -> None:
        """Sample patients `first` .. `first + len(conditions) - 1`."""
        number = len(conditions)
        maximum = self.model.positions.shape[0] - 1
        alive = torch.arange(number)
        counts = np.full(number, maximum, dtype=np.int64)
        prefix: list[Tensor] = []  # (n, E) embedded rows: start, label visit, visits
        visit = torch.zeros(number, self.layout.size, dtype=torch.bool)
        visit[:, self.layout.start] = True
        for position in range(maximum + 1):
            prefix.append(self._embed(visit, position))
            base, high = self.model.head.begin(self._history(prefix))
            uniform = self._uniforms(position, first=first, number=number)[alive]
            head = _VisitHead(model=self.model, base=base, high=high, uniform=uniform)
            if position == 0:
                visit = label_visit(head, layout=self.layout, conditions=conditions)
                self._keep(visit, patients=alive, position=position)
                continue
            visit, ended = code_visit(head, layout=self.layout)
            self._keep(visit, patients=alive, position=position)
            counts[alive[ended].numpy()] = position
            alive, visit, prefix = alive[~ended], visit[~ended], [part[~ended] for part in prefix]
            if not len(alive):
                break
        self.capped += len(alive)
        self.visits.append(counts)

    def records(self, number: int) -> Records:
        """All rows collected so far as records of `number` patients."""
        layout = self.layout
        rows = np.concatenate(self.rows) if self.rows else np.empty((0, 3), dtype=np.int64)
        rows = rows[np.lexsort(rows.T[::-1])]
        counts = np.concatenate(self.visits) if self.visits else np.empty(0, dtype=np.int64)
        context, codes = rows[rows[:, 1] == 0], rows[rows[:, 1] > 0]
        patient_offsets = _offsets(counts)
        visit = patient_offsets[codes[:, 0]] + codes[:, 1] - 1
        groups = context[(context[:, 2] >= layout.groups.start) & (context[:, 2] < layout.groups.stop)]
        label = np.zeros(number, dtype=np.int64)
        label[context[context[:, 2] == layout.label, 0]] = 1
        return Records(
            codes=codes[:, 2].copy(),
            visit_offsets=_offsets(np.bincount(visit, minlength=patient_offsets[-1])),
            patient_offsets=patient_offsets,
            context=context[:, 2].copy(),
            context_offsets=_offsets(np.bincount(context[:, 0], minlength=number)),
            group=groups[:, 2] - layout.groups.start,
            label=label,
        )

    def _keep(self, visit: Tensor, *, patients: Tensor, position: int) -> None:
        row, token = visit.nonzero(as_tuple=True)
        triple = torch.stack([patients[row], torch.full_like(row, position), token], dim=1)
        self.rows.append(triple.numpy())

    def _embed(self, visit: Tensor, position: int) -> Tensor:
        """(n, V) bool -> (n, E)."""
        tokens, starts = _sparse(visit)
        return self.model.embed(tokens, starts, torch.full((len(visit),), position))

    def _history(self, prefix: list[Tensor]) -> Tensor:
        """(n, E) history after the rows of `prefix`, recomputed: prefixes are short."""
        steps = torch.stack(prefix, dim=1)  # (n, t, E)
        patients, length, size = steps.shape
        return self.model.mix(steps.reshape(-1, size), ((patients, length),)).view(patients, length, size)[:, -1]

    def _uniforms(self, position: int, *, first: int, number: int) -> Tensor:
        """(number, V) float64: the uniforms of patients `first` .. at one visit, by counter, whatever the batch."""
        blocks = -(-self.layout.size // 4)  # Philox gives four doubles a counter
        bits = np.random.Philox(key=stream(self.seed, "sample", position))
        bits.advance(first * blocks)
        return torch.from_numpy(np.random.Generator(bits).random((number, 4 * blocks))[:, : self.layout.size])


@dataclass(frozen=True, kw_only=True, eq=False)
class _VisitHead:
    """The head of n patients at one visit: what the history gives, and the uniforms of the visit's tokens."""

    model: Halo
    base: Tensor  # (n, V)
    high: Tensor  # (n, V - 1)
    uniform: Tensor  # (n, V) float64

    def __len__(self) -> int:
        return len(self.base)

    def logits(self, visit: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """(m, V) logits of patients `rows` given their tokens so far, (m, V) bool."""
        tokens, starts = _sparse(visit[:, :-1])
        return self.model.head.finish(self.base[rows], self.high[rows], tokens=tokens, starts=starts)

    def settle(self, visit: Tensor, columns: slice) -> Tensor:
        """Draw the independent tokens `columns` given the others of `visit`: the fixed point. (n, V) logits of it.

        `visit` is changed in place. Patients whose tokens no longer change leave the computation.
        """
        threshold = torch.logit(self.uniform[:, columns])
        logits = torch.empty_like(self.base)
        open_ = torch.arange(len(self))
        for _ in range(visit[:, columns].shape[1] + 1):
            current = self.logits(visit[open_], open_)
            logits[open_] = current
            drawn = current[:, columns] > threshold[open_]
            moved = (drawn != visit[open_, columns]).any(dim=1)
            visit[open_, columns] = drawn
            open_ = open_[moved]
            if not len(open_):
                break
        return logits

    def choose(self, visit: Tensor, columns: slice, fixed: Tensor) -> None:
        """Turn on exactly one of `columns`: `fixed` (n,) where it is not -1, else the first that fires."""
        chosen = first_to_fire(self.logits(visit)[:, columns], uniform=self.uniform[:, columns])
        chosen = torch.where(fixed == FREE, chosen, fixed)
        visit[torch.arange(len(self)), columns.start + chosen] = True


def label_visit(head: _VisitHead, *, layout: TokenLayout, conditions: Conditions) -> Tensor:
    """(n, V) bool label visits: group, label, sex, age, phenotypes, each given those before it."""
    visit = torch.zeros(len(head), layout.size, dtype=torch.bool)
    fixed = torch.from_numpy(conditions.label)
    head.choose(visit, layout.groups, torch.from_numpy(conditions.group))
    head.settle(visit, slice(layout.label, layout.label + 1))
    visit[:, layout.label] = torch.where(fixed == FREE, visit[:, layout.label], fixed == 1)
    for columns, given in ((layout.sexes, conditions.sex), (layout.ages, conditions.age)):
        if columns.stop > columns.start:
            free = torch.full((len(head),), FREE)
            head.choose(visit, columns, free if given is None else torch.from_numpy(given))
    head.settle(visit, layout.phenotypes)
    return visit


def code_visit(head: _VisitHead, *, layout: TokenLayout) -> tuple[Tensor, Tensor]:
    """(n, V) bool codes of the next visits, and (n,) bool whether each is its patient's last."""
    visit = torch.zeros(len(head), layout.size, dtype=torch.bool)
    logits = head.settle(visit, layout.codes)
    ended = logits[:, layout.end] > torch.logit(head.uniform[:, layout.end])
    return visit, ended


def first_to_fire(logits: Tensor, *, uniform: Tensor) -> Tensor:
    """(n, K) logits of a block while all of it is off -> (n,) the first token that fires, given that one does.

    Token k fires with p_k / (1 - prod_{j >= k} (1 - p_j)), its chance given that none before it did and one will.
    """
    logits = logits.double()
    none_from = functional.logsigmoid(-logits).flip(1).cumsum(1).flip(1)  # log prod_{j >= k} (1 - p_j)
    fires = functional.logsigmoid(logits).exp() / -torch.expm1(none_from)
    hit = uniform < fires
    hit[:, -1] = True
    return hit.int().argmax(dim=1)


def _sparse(visit: Tensor) -> tuple[Tensor, Tensor]:
    """(n, V) bool -> token ids and the start of each row's ids."""
    rows, tokens = visit.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(visit))
    return tokens, counts.cumsum(0) - counts


def _offsets(counts: IntArray) -> IntArray:
    """CSR offsets of rows with these lengths."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
