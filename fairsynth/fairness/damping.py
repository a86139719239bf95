"""How strongly a round is steered: less while the coefficients turn round and round.

In:  the coefficients of this round and of the one before, and how strongly that one was steered.
Out: a factor in (0, 1] for all coefficients of this round.
Never: the size of a loss; patients.

Coefficients are slopes at a model that the sites then leave. Near parity, where |1 - DI| has its kink, a round along
a slope overshoots, the next slope points back, and rates swing about parity for ever. A factor that is halved whenever
the coefficients point back, and grows by a tenth while they do not, lets them settle (after the step sizes of Rprop,
Riedmiller and Braun 1993, which grow by a fifth: with slopes that are a round old, that settles slowly). It scales
lambda for all sites and patients of a round alike, so the sum of the sites' gradients stays the gradient of one pooled
objective.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairsynth.schemas import FloatArray

SHRINK = 0.5
GROW = 1.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Steering:
    """The slopes (G, 2) at the pooled counts, and the share of them that a round is given."""

    slopes: FloatArray
    strength: float = 1.0

    @property
    def coefficients(self) -> FloatArray:
        """(G, 2) what the sites get."""
        return self.slopes * self.strength


def steer(slopes: FloatArray, *, before: Steering | None) -> Steering:
    """The next round's steering by `slopes` (G, 2), given the last round's; full strength in the first."""
    if before is None:
        return Steering(slopes=slopes)
    turned = float((slopes * before.slopes).sum()) < 0
    strength = before.strength * SHRINK if turned else min(1.0, before.strength * GROW)
    return Steering(slopes=slopes, strength=strength)
