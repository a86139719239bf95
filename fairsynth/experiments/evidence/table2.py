"""What lambda does (the paper's Table 2): FairSynth's generator, steered by its objective more or less.

In:  a bench, sizes and a seed's number.   Out: a `Cell`; approaches: "real_only", "lambda=0", "lambda=0.5" and so on.
Never: two generators that differ in more than lambda: they start alike and are trained on for as many rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from fairsynth.experiments.evidence import additions
from fairsynth.experiments.evidence.additions import BySite
from fairsynth.experiments.evidence.bench import Bench
from fairsynth.experiments.evidence.chosen import chooser
from fairsynth.experiments.evidence.counting import Variants
from fairsynth.experiments.evidence.steering import go_on

LAMBDAS = (0.0, 0.5, 1.0, 1.2, 1.5, 3.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table2(Variants):
    """All lambdas of one row and seed."""

    _benches: dict[float, Bench] = field(default_factory=dict)

    def approaches(self, predictor: str) -> Mapping[str, Callable[[], BySite]]:
        """Whom each lambda adds for `predictor`."""
        return {
            "real_only": lambda: additions.nobody(self.bench),
            **{f"lambda={weight:g}": partial(self.at, weight, predictor) for weight in LAMBDAS},
        }

    def at(self, weight: float, predictor: str) -> BySite:
        """FairSynth with candidates of the generator that was trained on under L_F with this lambda."""
        if weight not in self._benches:
            found = go_on(self.bench, weight=weight)
            self._benches[weight] = found.bench
            self.facts[f"nll/lambda={weight:g}"] = [round(each, 4) for each in found.nll]
        chosen = chooser(self._benches[weight], predictor=predictor, quotas=self.quotas).run()
        self.facts[f"selected/lambda={weight:g}/{predictor}"] = chosen.kept.selected.round(4).tolist()
        return chosen.added
