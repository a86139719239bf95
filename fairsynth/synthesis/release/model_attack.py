"""What an attacker who has the generator itself learns: who was in training?

In:  a generator, training and held-out records.   Out: `Membership`.
Never: a gate. The generator does not leave with synthetic patients; the other sites of a study have the common one.
"""

from __future__ import annotations

import numpy as np

from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import nll
from fairsynth.generator.model import Halo
from fairsynth.synthesis.release.attacks import Membership, membership
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.records import Records


def model_membership(
    model: Halo, *, train: Records, held_out: Records, vocabulary: Vocabulary, share: float, rng: np.random.Generator
) -> Membership:
    """The loss-threshold attack on the generator itself (Yeom et al. 2018): the score is minus the loss of a patient,
    in nats a predicted visit. Raises CohortError when records do not fit the generator."""
    members, others = (
        np.array([-_loss(model, part.take(np.array([row])), vocabulary) for row in range(len(part))])
        for part in (train, held_out)
    )
    return membership(members, others, share=share, rng=rng)


def _loss(model: Halo, patient: Records, vocabulary: Vocabulary) -> float:
    maximum = model.positions.shape[0] - 1
    sequences = Sequences.of(patient, vocabulary=vocabulary, maximum_visits=maximum)
    nats, predicted = nll(model, sequences, layout=vocabulary.layout)
    return nats / predicted
