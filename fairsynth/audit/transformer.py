"""The paper's downstream model (appendix E): one transformer layer for each kind of input, one logit out of all.

In:  training `Records`, or weights that travelled.   Out: `FittedTransformer`, which scores patients.
Never: the label as an input, global random state (dropout draws from a generator of its own).

Three kinds of input, each projected into 128 dimensions and read by a transformer layer of its own: the sequence of
visits (each the sum of its codes' projections, with a position counted back from the latest visit), the phenotypes, and
the demographics (group, sex, age). A layer is the block of appendix A (Eq. 6). What it has read is taken from a
learned read-out token in the last place, which sees every other one under the mask of Eq. 7; since nothing else of the
layer's output is used, nothing else is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fairsynth import seeds
from fairsynth.audit.features import Features, demographic_tokens, features, phenotype_tokens
from fairsynth.audit.fitting import FitSettings, Fitted, checked_weights
from fairsynth.generator.train import threads
from fairsynth.schemas import Arrays, FloatArray, IntArray
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records

WIDTH = 128  # "a common 128-dimensional space"
HEADS = 4
POSITIONS = 64  # visits older than this share the last position
SCORING_BATCH = 512
POOL = 16  # batches that are sorted by length together


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Appendix E: Adam at 1e-3, no weight decay, no bound on the gradient's norm, batches of 64."""

    learning_rate: float = 1e-3
    batch_size: int = 64
    dropout: float = 0.1

    def fit(
        self,
        train: Records,
        *,
        vocabulary: Vocabulary,
        settings: FitSettings,
        seed: int,
        weights: FloatArray | None = None,
    ) -> Fitted:
        """Train for `settings.epochs` passes over `train`; binary cross-entropy, no class weights.

        `weights` are scaled to a mean of 1, so that the learning rate keeps its meaning.
        """
        checked = checked_weights(weights, patients=len(train))
        relative = None if checked is None else checked / checked.mean()
        positives = train.label.sum() if relative is None else train.label @ relative
        with threads(settings.threads):
            prior = log_odds(float(positives), patients=len(train))
            model = begin(vocabulary, prior=prior, seed=seed)
            self.descend(model, train=train, vocabulary=vocabulary, epochs=settings.epochs, seed=seed, weights=relative)
        return FittedTransformer(model=model, vocabulary=vocabulary, threads=settings.threads)

    def descend(
        self,
        model: Network,
        *,
        train: Records,
        vocabulary: Vocabulary,
        epochs: int,
        seed: int,
        weights: FloatArray | None = None,
    ) -> None:
        """Train `model` in place for `epochs` passes over `train`, with an optimiser that starts anew."""
        dropout = Dropout(rate=self.dropout, generator=seeds.torch_stream(seed, "dropout"))
        optimiser = torch.optim.Adam(model.parameters(), lr=self.learning_rate, fused=True)
        for epoch in range(epochs):
            order = seeds.numpy_stream(seed, "order", epoch)
            for rows in batches(train.visit_counts, size=self.batch_size, rng=order):
                batch = train.take(rows)
                logits = model(features(batch, vocabulary=vocabulary), dropout)  # (B,)
                label = torch.from_numpy(batch.label).to(logits.dtype)
                weight = None if weights is None else torch.from_numpy(weights[rows]).to(logits.dtype)
                optimiser.zero_grad()
                loss = functional.binary_cross_entropy_with_logits(logits, label, weight=weight)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimiser.step()


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedTransformer:
    """A trained network."""

    model: Network
    vocabulary: Vocabulary
    threads: int

    def scores(self, records: Records) -> FloatArray:
        """(B,) the predicted chance of label 1. A patient's score does not depend on who else is scored."""
        result = np.zeros(len(records))
        with threads(self.threads), torch.no_grad():
            for rows, inputs in self._parts(records):
                result[rows] = torch.sigmoid(self.model(inputs, None).double()).numpy()
        return result

    def readouts(self, records: Records) -> FloatArray:
        """(B, 3 E) the inputs of the last layer, whose log-odds are linear in them."""
        result = np.zeros((len(records), 3 * WIDTH))
        with threads(self.threads), torch.no_grad():
            for rows, inputs in self._parts(records):
                result[rows] = self.model.read(self.model.visits(inputs), inputs, None).numpy()
        return result

    def _parts(self, records: Records) -> Iterator[tuple[IntArray, Features]]:
        """Patients of similar length together: their rows and inputs."""
        order = np.argsort(records.visit_counts, kind="stable")
        for start in range(0, len(records), SCORING_BATCH):
            rows = order[start : start + SCORING_BATCH]
            yield rows, features(records.take(rows), vocabulary=self.vocabulary)


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Inverted dropout whose draws come from `generator`."""

    rate: float
    generator: torch.Generator

    def __call__(self, values: Tensor) -> Tensor:
        """`values` with a share `rate` set to zero, the others scaled so that the expectation stays."""
        kept = torch.empty_like(values).bernoulli_(1 - self.rate, generator=self.generator)
        return values * kept / (1 - self.rate)


class Layer(nn.Module):
    """The block of Eq. 6 for the read-out token: attention to a set of tokens and itself, then a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.readout = nn.Parameter(torch.empty(WIDTH))
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key_value = nn.Linear(WIDTH, 2 * WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)
        self.widen = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])

    def forward(self, tokens: Tensor, lengths: IntArray, dropout: Dropout | None) -> Tensor:
        """(B, E) read-outs of the tokens (sum of `lengths`, E), patient by patient."""
        patients, longest = len(lengths), int(lengths.max(initial=0))
        drop = dropout or _identity
        own = self.key_value(self.readout).expand(patients, 1, 2 * WIDTH)  # (B, 1, 2E)
        place = torch.from_numpy(_places(lengths, longest))
        padded = tokens.new_zeros(patients * longest, 2 * WIDTH).index_copy(0, place, self.key_value(tokens))
        key_value = torch.cat([padded.view(patients, longest, 2 * WIDTH), own], dim=1)  # (B, longest + 1, 2E)
        real = torch.from_numpy(np.arange(longest + 1) < lengths[:, None])  # (B, longest + 1)
        real[:, longest] = True
        key, value = (_heads(part) for part in key_value.chunk(2, dim=-1))  # (B, H, longest + 1, E / H)
        query = _heads(self.query(self.readout).expand(patients, 1, WIDTH))
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None, :])
        hidden = self.readout + drop(self.output(read.transpose(1, 2).reshape(patients, WIDTH)))
        hidden = self.norms[0](hidden)
        hidden = hidden + drop(self.narrow(functional.relu(self.widen(hidden))))
        return self.norms[1](hidden)  # type: ignore[no-any-return]  # nn.ModuleList hides the type


class Network(nn.Module):
    """Three projections, three layers, one logit. Parameters hold no value before `initialise`."""

    def __init__(self, vocabulary: Vocabulary, *, prior: float) -> None:
        super().__init__()
        layout = vocabulary.layout
        self.prior = prior  # log-odds of the label in the training set: where the output's bias starts
        with torch.device("meta"):  # no draw from the global random state
            self.codes = nn.Parameter(torch.empty(max(len(vocabulary.codes), 1), WIDTH))
            self.positions = nn.Parameter(torch.empty(POSITIONS, WIDTH))
            self.phenotypes = nn.Parameter(torch.empty(max(phenotype_tokens(layout), 1), WIDTH))
            self.demographics = nn.Parameter(torch.empty(demographic_tokens(layout), WIDTH))
            self.layers = nn.ModuleList([Layer(), Layer(), Layer()])
            self.head = nn.Linear(3 * WIDTH, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every matrix from N(0, 1 / inputs) (embeddings: as one input of about ten); biases 0, norms 1."""
        self.to_empty(device="cpu")
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if "norms" in name:
                    parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                elif name.endswith("bias"):
                    parameter.zero_()
                else:
                    inputs = parameter.shape[1] if name.endswith("weight") else 10
                    parameter.normal_(0, 1 / math.sqrt(inputs), generator=generator)
        with torch.no_grad():
            self.head.bias.fill_(self.prior)

    def forward(self, inputs: Features, dropout: Dropout | None) -> Tensor:
        """(B,) logits; `dropout` None when scoring."""
        return self.logits(self.read(self.visits(inputs), inputs, dropout))

    def visits(self, inputs: Features) -> Tensor:
        """(sum T, E) the sum of each visit's codes' projections."""
        offsets = torch.from_numpy(inputs.visits.offsets[:-1])
        return functional.embedding_bag(torch.from_numpy(inputs.visits.values), self.codes, offsets, mode="sum")

    def read(self, visits: Tensor, inputs: Features, dropout: Dropout | None) -> Tensor:
        """(B, 3 E) what the three layers read of `visits` (sum T, E) and the other inputs."""
        drop = dropout or _identity
        counts = np.diff(inputs.patients)
        back = np.repeat(inputs.patients[1:], counts) - np.arange(inputs.patients[-1]) - 1  # 0: the latest visit
        positions = torch.from_numpy(np.minimum(back, POSITIONS - 1))
        sets = (
            (visits + self.positions[positions], counts),
            (self.phenotypes[torch.from_numpy(inputs.phenotypes.values)], inputs.phenotypes.lengths),
            (self.demographics[torch.from_numpy(inputs.demographics.values)], inputs.demographics.lengths),
        )
        parts = [
            layer(drop(tokens), lengths, dropout) for layer, (tokens, lengths) in zip(self.layers, sets, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def logits(self, read: Tensor) -> Tensor:
        """(B,) logits of what was read (B, 3 E)."""
        return self.head(read).squeeze(1)  # type: ignore[no-any-return]  # nn.Module.__call__


def begin(vocabulary: Vocabulary, *, prior: float, seed: int) -> Network:
    """A network that has learnt nothing but the log-odds `prior`."""
    model = Network(vocabulary, prior=prior)
    model.initialise(seeds.torch_stream(seed, "initial"))
    return model


def weights_of(model: Network) -> Arrays:
    """Copies of the network's parameters by name, float32."""
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


def network_of(weights: Arrays, *, vocabulary: Vocabulary) -> Network:
    """The network with these parameters. Raises RuntimeError when names or shapes are not those of the vocabulary."""
    model = Network(vocabulary, prior=0.0)
    model.to_empty(device="cpu")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model


def batches(lengths: IntArray, *, size: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Indices of every patient once, in random batches of `size` with similar lengths, so that little is padded."""
    order = rng.permutation(len(lengths))
    parts: list[IntArray] = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        parts.extend(pool[begin : begin + size] for begin in range(0, len(pool), size))
    for part in rng.permutation(len(parts)):
        yield parts[part]


def _places(lengths: IntArray, longest: int) -> IntArray:
    """The row of each token in a (B * longest) padded array."""
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    shift = np.arange(len(lengths)) * longest - offsets[:-1]
    return np.asarray(np.arange(offsets[-1]) + np.repeat(shift, lengths), dtype=np.int64)


def _heads(values: Tensor) -> Tensor:
    """(B, T, E) -> (B, H, T, E / H)."""
    return values.reshape(*values.shape[:-1], HEADS, WIDTH // HEADS).transpose(1, 2)


def _identity(values: Tensor) -> Tensor:
    return values


def log_odds(positives: float, *, patients: float) -> float:
    """Log-odds of label 1, half a patient added to either side."""
    return math.log((positives + 0.5) / (patients - positives + 0.5))
