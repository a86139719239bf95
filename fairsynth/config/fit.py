"""How one generator is trained at one place, without a server.

In:  nothing.   Out: a frozen model.   Never: the size of the generator (`plan.GeneratorConfig`), a path.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from fairsynth.config.base import Fraction, Strict


class FitConfig(Strict):
    """Training with AdamW until the validation NLL no longer falls; the warm-up is a tenth of all steps at most."""

    epochs: PositiveInt | None = None  # passes over the patients, at most; None: 12, up to 60 where patients are few
    batch_size: PositiveInt = 128  # patients a step
    learning_rate: PositiveFloat = 3e-3  # after the warm-up
    warm_up_steps: NonNegativeInt = 100
    final_learning_rate_share: Annotated[float, Field(gt=0, le=1)] = 0.05  # at the last step; a half cosine before it
    weight_decay: NonNegativeFloat = 0.1
    patience: PositiveInt | None = 4  # epochs without a better validation NLL; None: never stop early
    validation_share: Fraction = 0.1  # of the patients, where no validation patients are given
    threads: PositiveInt | None = None  # torch threads; None: all of the machine. CPU sums depend on it
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU that has it
