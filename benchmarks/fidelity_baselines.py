"""What HALO's likelihood is compared with: unigram, first-order Markov, LSTM. Their tokens of a visit are independent.

In:  training, validation and held-out `Records`.   Out: nats a predicted visit (label visits included) on the held-out.
Never: a cell that cannot be on: a label visit is charged its context tokens only, a visit its codes and `end` only.

All three draw the label visit from base rates: nothing comes before it. Visits: base rates (unigram); a logistic
regression on the row before, which is the label visit for the first (Markov); an LSTM over the rows so far.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fairsynth.generator.base_rates import base_rates
from fairsynth.generator.train import shuffled
from fairsynth.schemas import IntArray
from fairsynth.seeds import numpy_stream, torch_stream
from fairsynth.visits.layout import TokenLayout, Vocabulary
from fairsynth.visits.records import Records

PATIENCE, BATCH, LEARNING_RATE, WEIGHT_DECAY = 3, 64, 2e-3, 0.01
SIZE = 128  # of the LSTM, and of its embedding
MEASURED = 512  # patients in one batch without a gradient


def baseline_nll(
    train: Records, *, validation: Records, test: Records, vocabulary: Vocabulary, seed: int, epochs: int
) -> dict[str, float]:
    """Nats a predicted visit of each baseline on `test`; `epochs` at most."""
    layout = vocabulary.layout
    rates = torch.from_numpy(base_rates(train, vocabulary=vocabulary)).float()
    label_visits = _label_visit_nats(test, rates=rates, layout=layout)
    predicted = test.visits + len(test)
    found = {}
    for name, network in _networks(rates, layout=layout, seed=seed).items():
        if name != "unigram":
            order = [numpy_stream(seed, "baselines", epoch) for epoch in range(epochs)]
            _fit(network, train=train, validation=validation, layout=layout, order=order)
        found[name] = (label_visits + _nats(network, test, layout=layout)) / predicted
    return found


def _networks(rates: Tensor, *, layout: TokenLayout, seed: int) -> dict[str, nn.Module]:
    bias = torch.cat([rates[: layout.codes.stop], rates[layout.end :]])
    markov, lstm = Markov(layout.size, bias=bias), Lstm(layout.size, bias=bias)
    generator = torch_stream(seed, "baselines")
    with torch.no_grad():
        for weight in lstm.lstm.parameters():
            weight.uniform_(-(SIZE**-0.5), SIZE**-0.5, generator=generator)
        for weight in (lstm.embedding, lstm.output):
            weight.normal_(0, 0.02, generator=generator)
    return {"unigram": Unigram(bias), "markov": markov, "lstm": lstm}


@dataclass(frozen=True, kw_only=True, eq=False)
class Patients:
    """(B, longest, V) bool `rows`: label visit, visits, then nothing; `visits` (B,) how many; `target` (sum T, C + 1)
    codes and `end`, patient by patient."""

    rows: Tensor
    visits: Tensor
    target: Tensor


class Unigram(nn.Module):
    """Base rates."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.clone())

    def forward(self, patients: Patients) -> Tensor:
        """(sum T, C + 1) logits."""
        return self.bias.expand_as(patients.target)


class Markov(nn.Module):
    """A logistic regression of each token on all tokens of the row before."""

    def __init__(self, tokens: int, *, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.clone())
        self.weight = nn.Parameter(torch.zeros(tokens, len(bias)))

    def forward(self, patients: Patients) -> Tensor:
        """(sum T, C + 1) logits."""
        return patients.rows[_before(patients)].float() @ self.weight + self.bias


class Lstm(nn.Module):
    """An LSTM over the rows so far, then independent tokens."""

    def __init__(self, tokens: int, *, bias: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(tokens, SIZE))
        self.lstm = nn.LSTM(SIZE, SIZE, batch_first=True)
        self.output = nn.Parameter(torch.empty(SIZE, len(bias)))
        self.bias = nn.Parameter(bias.clone())

    def forward(self, patients: Patients) -> Tensor:
        """(sum T, C + 1) logits."""
        hidden, _ = self.lstm(patients.rows.float() @ self.embedding)
        return hidden[_before(patients)] @ self.output + self.bias


def _before(patients: Patients) -> Tensor:
    """(B, longest) bool: the rows that a visit follows."""
    places = torch.arange(patients.rows.shape[1])
    return places < patients.visits[:, None]


def _fit(
    network: nn.Module, *, train: Records, validation: Records, layout: TokenLayout, order: list[np.random.Generator]
) -> None:
    """AdamW until the validation NLL has not fallen for `PATIENCE` epochs; the best weights stay."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, kept, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    for each in order:
        for rows in shuffled(len(train), size=BATCH, order=each):
            patients = _patients(train, rows, layout=layout)
            optimiser.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(network(patients), patients.target, reduction="sum")
            (loss / len(patients.target)).backward()
            optimiser.step()
        now = _nats(network, validation, layout=layout)
        waited = 0 if now < best else waited + 1
        if now < best:
            best, kept = now, copy.deepcopy(network.state_dict())
        if waited == PATIENCE:
            break
    network.load_state_dict(kept)


@torch.no_grad()
def _nats(network: nn.Module, records: Records, *, layout: TokenLayout) -> float:
    """Of all visits of `records`, label visits left out."""
    return sum(
        float(functional.binary_cross_entropy_with_logits(network(each), each.target, reduction="sum"))
        for each in _batches(records, layout=layout)
    )


def _batches(records: Records, *, layout: TokenLayout) -> Iterator[Patients]:
    order = np.argsort(records.visit_counts, kind="stable")
    for start in range(0, len(order), MEASURED):
        yield _patients(records, order[start : start + MEASURED], layout=layout)


def _patients(records: Records, rows: IntArray, *, layout: TokenLayout) -> Patients:
    part = records.take(rows)
    longest, codes = int(part.visit_counts.max()), layout.codes.stop
    dense = torch.zeros(len(part), longest + 1, layout.size, dtype=torch.bool)
    target = torch.zeros(part.visits, codes + 1)
    visit = np.repeat(np.arange(part.visits), np.diff(part.visit_offsets))
    patient = part.visit_patient
    place = 1 + np.arange(part.visits) - part.patient_offsets[patient]
    context_owner = np.repeat(np.arange(len(part)), np.diff(part.context_offsets))
    dense[context_owner, 0, part.context] = True
    dense[patient[visit], place[visit], part.codes] = True
    target[visit, part.codes] = 1
    target[part.patient_offsets[1:] - 1, codes] = 1
    return Patients(rows=dense, visits=torch.from_numpy(part.visit_counts), target=target)


def _label_visit_nats(records: Records, *, rates: Tensor, layout: TokenLayout) -> float:
    """Of all label visits under independent base rates."""
    context = rates[layout.context]
    on = torch.from_numpy(np.bincount(records.context, minlength=layout.size)[layout.context])
    return float((functional.softplus(context) * len(records)).sum() - (context * on).sum())
