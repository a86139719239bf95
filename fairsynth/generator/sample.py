"""New patients, drawn from the model exactly and in parallel; or the next visits of given ones.

In:  weights and, per patient, a condition on the label visit, or a history.   Out: `Records`.
Never: files, global random state, a patient that depends on the patients sampled beside it.

Each (patient, visit, token) has its own uniform u, a function of the seed alone, and token k is on iff its logit
exceeds logit(u_k), given the tokens before it. Structure that records have by definition is imposed: a label visit
holds context tokens only (`label_visit`), other visits codes and `end` only (`visit`).

A batch holds as many patients as it may: who has ended leaves, and the next one takes the place. The same seed gives
the same patient whatever stands beside it, up to float rounding: a token can differ only where its uniform lies within
rounding (about 1e-6) of its probability.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairsynth.config import GeneratorConfig
from fairsynth.errors import CohortError
from fairsynth.generator.conditions import FREE, Conditions
from fairsynth.generator.decode import Cache
from fairsynth.generator.label_visit import LabelVisits
from fairsynth.generator.model import Halo, build
from fairsynth.generator.uniforms import uniforms_on
from fairsynth.generator.visit import draw_visit, sparse
from fairsynth.schemas import Arrays, IntArray
from fairsynth.visits.layout import TokenLayout, Vocabulary
from fairsynth.visits.records import Records

__all__ = ["FREE", "Conditions", "Sampled", "draw", "sample", "stream_patients"]


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
    return draw(model, conditions=conditions, seed=seed, batch_size=batch_size).records


def draw(model: Halo, *, conditions: Conditions, seed: int, batch_size: int = 256) -> Sampled:
    """One patient for each of `conditions`, in their order, from a model in memory."""
    parts = list(stream_patients(model, conditions=conditions, seed=seed, batch_size=batch_size))
    records = [part.records for part in parts] or [_records(_NOTHING, counts=_NOTHING[0], layout=model.layout)]
    return Sampled(records=Records.concatenate(records), capped=sum(part.capped for part in parts))


def stream_patients(
    model: Halo, *, conditions: Conditions | Records, seed: int, batch_size: int = 256
) -> Iterator[Sampled]:
    """One patient for each of `conditions`, in their order, some `batch_size` at a time.

    Instead of conditions, `Records` may be given: each of their patients is continued by at least one visit, given its
    label visit and its visits so far, and comes back whole. Memory does not grow with the number of patients. Raises
    ConfigError when conditions do not fit the model or are too rare for it, CohortError when a history leaves no room
    for a visit.
    """
    if isinstance(conditions, Records):
        room = model.positions.shape[0] - 1
        if full := int((conditions.visit_counts >= room).sum()):
            raise CohortError.of(
                "histories that leave no room for another visit",
                where=f"{full} of {len(conditions)} patients",
                expected=f"fewer than {room} visits",
                do="a generator with a larger maximum_visits, or each patient's last visits only",
            )
    else:
        conditions.check(model.layout)
    pool = _Pool(model, conditions=conditions, seed=seed, size=batch_size)
    for start in range(0, len(conditions), batch_size):
        stop = min(start + batch_size, len(conditions))
        with torch.inference_mode():  # not around the yield: what reads the stream has its own mode
            while not pool.finished(stop):
                pool.step()
            part = pool.take(stop)
        yield part


class _Pool:
    """The patients at work: at most `size`, numbered in their order; finished ones wait until they are taken."""

    def __init__(self, model: Halo, *, conditions: Conditions | Records, seed: int, size: int) -> None:
        self.model, self.conditions, self.seed, self.size = model, conditions, seed, size
        with torch.inference_mode():
            self.cache = Cache(model)
            self.label_visits = LabelVisits(model, self.cache.start)
        self.maximum = model.positions.shape[0] - 1
        self.patients = np.empty(0, dtype=np.int64)
        self.position = np.empty(0, dtype=np.int64)  # of the row to be read next, and of the visit it predicts
        self.rows = torch.empty(0, model.layout.size, dtype=torch.bool, device=model.device)  # the row to be read next
        self.kept: list[tuple[IntArray, IntArray, IntArray]] = []  # patient, position, token; 0 is the label visit
        self.counts = np.zeros(len(conditions), dtype=np.int64)  # visits of finished patients
        self.capped = np.zeros(len(conditions), dtype=bool)
        self.begun = self.taken = 0

    def finished(self, stop: int) -> bool:
        """Whether every patient below `stop` is."""
        return bool(self.counts[self.taken : stop].all())

    def step(self) -> None:
        """Begin patients while there is room, then give each its next visit."""
        self._begin()
        model, device = self.model, self.model.device
        positions = torch.from_numpy(self.position).to(device)
        history = self.cache.read(model.embed(*sparse(self.rows), positions))
        visit, ended = self._given()
        drawn = np.flatnonzero(self.position > self._lengths(self.patients))
        rows = torch.from_numpy(drawn).to(device)
        uniform = self._uniforms(self.patients[drawn], self.position[drawn])
        visit[rows, : model.layout.codes.stop], ended[rows] = draw_visit(model.head, history[rows], uniform=uniform)
        self._keep(visit, patients=self.patients, position=self.position)
        self._leave(visit, ended.cpu().numpy())

    def take(self, stop: int) -> Sampled:
        """The patients up to `stop`; every one of them is finished."""
        patient, position, token = (np.concatenate(parts) for parts in zip(*self.kept, strict=True))
        own = patient < stop
        self.kept = [(patient[~own], position[~own], token[~own])]
        taken, self.taken = slice(self.taken, stop), stop
        rows = (patient[own] - taken.start, position[own], token[own])
        records = _records(rows, counts=self.counts[taken], layout=self.model.layout)
        return Sampled(records=records, capped=int(self.capped[taken].sum()))

    def _begin(self) -> None:
        """Fill the batch with new patients: draw their label visits, or read them from their histories."""
        new = slice(self.begun, min(self.begun + self.size - len(self.patients), len(self.conditions)))
        number = new.stop - new.start
        if not number:
            return
        own = np.arange(new.start, new.stop, dtype=np.int64)
        rows = torch.zeros(number, self.model.layout.size, dtype=torch.bool, device=self.rows.device)
        if isinstance(self.conditions, Records):
            part = self.conditions.take(own)
            owner = np.repeat(np.arange(number), np.diff(part.context_offsets))
            rows[torch.from_numpy(owner), torch.from_numpy(part.context)] = True
        else:
            base = self.model.layout.codes.stop

            def drawn(places: IntArray, attempt: int) -> Tensor:
                path = (attempt,) if attempt else ()
                return self._uniforms(own[places], np.zeros_like(places), *path)[:, base:]

            rows[:, base:] = self.label_visits.draw(self.conditions.part(new), drawn)
        self._keep(rows, patients=own, position=np.zeros(number, dtype=np.int64))
        self.cache.change(keep=torch.arange(len(self.patients), device=self.rows.device), new=number)
        self.patients = np.concatenate([self.patients, own])
        self.position = np.concatenate([self.position, np.ones(number, dtype=np.int64)])
        self.rows = torch.cat([self.rows, rows])
        self.begun = new.stop

    def _leave(self, visit: Tensor, ended: np.ndarray) -> None:
        """Let ended patients go; the others read the visit that they were given."""
        full = self.position == self.maximum
        gone = ended | full
        self.counts[self.patients[gone]] = self.position[gone]
        self.capped[self.patients[full & ~ended]] = True
        stay = np.flatnonzero(~gone)
        rows = torch.from_numpy(stay).to(visit.device)
        self.cache.change(keep=rows, new=0)
        self.patients, self.position, self.rows = self.patients[stay], self.position[stay] + 1, visit[rows]

    def _given(self) -> tuple[Tensor, Tensor]:
        """(n, V) bool the next visits that histories give, nothing for the others; (n,) False."""
        visit = torch.zeros_like(self.rows)
        if isinstance(self.conditions, Records):
            part = self.conditions
            known = np.flatnonzero(self.position <= self._lengths(self.patients))
            for place in known:
                number = part.patient_offsets[self.patients[place]] + self.position[place] - 1
                codes = part.codes[part.visit_offsets[number] : part.visit_offsets[number + 1]]
                visit[place, torch.from_numpy(codes)] = True
        return visit, torch.zeros(len(visit), dtype=torch.bool, device=visit.device)

    def _lengths(self, patients: IntArray) -> IntArray:
        """Given visits of each patient."""
        if isinstance(self.conditions, Records):
            return self.conditions.visit_counts[patients]
        return np.zeros_like(patients)

    def _uniforms(self, patients: IntArray, visits: IntArray, *path: int) -> Tensor:
        tokens = self.model.layout.size
        device = self.model.device
        return uniforms_on(device, self.seed, *path, patients=patients, visits=visits, tokens=tokens)

    def _keep(self, rows: Tensor, *, patients: IntArray, position: IntArray) -> None:
        row, token = (index.cpu().numpy() for index in rows.nonzero(as_tuple=True))
        self.kept.append((patients[row], position[row], token))


_NOTHING = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def _records(rows: tuple[IntArray, IntArray, IntArray], *, counts: IntArray, layout: TokenLayout) -> Records:
    """Rows of (patient, position, token), position 0 being the label visit, as records with `counts` visits each."""
    patient, position, token = (part[np.lexsort((rows[2], rows[1], rows[0]))] for part in rows)
    number = len(counts)
    patient_offsets = _offsets(counts)
    is_code = position > 0
    visit = patient_offsets[patient[is_code]] + position[is_code] - 1
    owner, context = patient[~is_code], token[~is_code]
    is_group = (context >= layout.groups.start) & (context < layout.groups.stop)
    label = np.zeros(number, dtype=np.int64)
    label[owner[context == layout.label]] = 1
    return Records(
        codes=token[is_code],
        visit_offsets=_offsets(np.bincount(visit, minlength=patient_offsets[-1])),
        patient_offsets=patient_offsets,
        context=context,
        context_offsets=_offsets(np.bincount(owner, minlength=number)),
        group=context[is_group] - layout.groups.start,
        label=label,
    )


def _offsets(counts: IntArray) -> IntArray:
    """CSR offsets of rows with these lengths."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
