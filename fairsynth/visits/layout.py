"""Where each kind of token sits in the multi-hot vector of a visit.

In:  the shared vocabulary.   Out: `TokenLayout`, the one place that knows offsets (codes, labels,
specials, as in HALO).
Never: data.

A record is: start | label visit | visit 1 | ... | visit T (which also carries `end`). The label visit holds only
context tokens, ordered groups, label, sex, ages, phenotypes: a prefix of it fixes (group, label), which makes
conditional sampling exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fairsynth.artefacts import sha256_json
from fairsynth.schemas import SEXES


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """Named token offsets; `size` is V, the length of a visit's multi-hot vector."""

    codes: slice
    groups: slice
    label: int
    sexes: slice
    ages: slice
    phenotypes: slice
    start: int
    end: int

    @property
    def context(self) -> slice:
        """Every token of the label visit."""
        return slice(self.groups.start, self.phenotypes.stop)

    @property
    def size(self) -> int:
        """V: number of tokens, specials included."""
        return self.end + 1


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokens that all sites of a study share. `codes` are rolled-up codes such as `DX//CCS//157`, sorted.

    Where nobody's sex (age, phenotypes) is known, there are none.
    """

    codes: tuple[str, ...]
    groups: tuple[str, ...]
    ages: tuple[str, ...]
    phenotypes: tuple[str, ...]
    sexes: tuple[str, ...] = SEXES

    @cached_property
    def layout(self) -> TokenLayout:
        """The offsets of this vocabulary's tokens."""
        groups = slice(len(self.codes), len(self.codes) + len(self.groups))
        label = groups.stop
        sexes = slice(label + 1, label + 1 + len(self.sexes))
        ages = slice(sexes.stop, sexes.stop + len(self.ages))
        phenotypes = slice(ages.stop, ages.stop + len(self.phenotypes))
        return TokenLayout(
            codes=slice(0, len(self.codes)),
            groups=groups,
            label=label,
            sexes=sexes,
            ages=ages,
            phenotypes=phenotypes,
            start=phenotypes.stop,
            end=phenotypes.stop + 1,
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """(V,) the name of every token."""
        sexes = tuple(f"SEX//{sex}" for sex in self.sexes)
        groups = tuple(f"GROUP//{group}" for group in self.groups)
        ages = tuple(f"AGE//{age}" for age in self.ages)
        phenotypes = tuple(f"PHENOTYPE//{phenotype}" for phenotype in self.phenotypes)
        return (*self.codes, *groups, "LABEL", *sexes, *ages, *phenotypes, "START", "END")

    @cached_property
    def sha256(self) -> str:
        """The hash that every message names."""
        return sha256_json(self.names)
