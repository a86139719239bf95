"""The known truth: patients with their latent severity, conditions, true risk, group and labels.

In:  a `SimulationConfig`.   Out: `Population`, the very patients whose tables `simulate` writes for the same config.
Never: files. The same config with another seed gives fresh patients of the same process, for as many as are asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fairsynth import seeds
from fairsynth.config import SimulationConfig
from fairsynth.errors import ConfigError
from fairsynth.simulate import bias
from fairsynth.simulate.calibrate import Process, calibrated
from fairsynth.simulate.course import Streams, draw_patients, draw_visits
from fairsynth.simulate.outcome import alive_before, risks
from fairsynth.simulate.population import Population, concatenate
from fairsynth.simulate.source import BoolArray

CHUNK = 2_000  # patients held in memory at a time; part of the random streams' names, so not an option


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One chunk: all planned visits, and which of them take place and are in the tables."""

    process: Process
    planned: Population
    seen: BoolArray  # (V,) of `planned.visits`
    streams: Streams

    @property
    def population(self) -> Population:
        """The patients who are in the tables, with the visits that took place."""
        return self.planned.keep_visits(self.seen).keep_patients(seen_patients(self))


def draw(config: SimulationConfig) -> Population:
    """All patients of the simulation, with what is true of them; `config.detail` plays no part."""
    return concatenate([part.population for part in parts(config)])


def parts(config: SimulationConfig) -> Iterator[Part]:
    """The simulation's patients, chunk by chunk. Raises ConfigError for bias in a group that the source lacks."""
    process = calibrated(config.source, outcome_shift=config.bias.outcome_shift)
    known = sorted(set(process.source.groups.group))
    if unknown := sorted(set(config.bias.groups or ()) - set(known)):
        raise ConfigError.of(
            "unknown group", where=f"bias.groups: {unknown[0]}", expected=f"one of: {', '.join(known)}"
        )
    visits = 0
    for chunk, first in enumerate(range(0, config.patients, CHUNK)):
        number = min(CHUNK, config.patients - first)
        part = _part(process, config, first=first, number=number, visits=visits, chunk=chunk)
        visits += len(part.seen)
        yield part


def seen_patients(part: Part) -> BoolArray:
    """(P,) patients of `part.planned` who are in the tables."""
    keep = np.zeros(len(part.planned.patients.number), dtype=bool)
    keep[part.planned.visits.patient[part.seen]] = True
    return keep


def _part(process: Process, config: SimulationConfig, *, first: int, number: int, visits: int, chunk: int) -> Part:
    streams = partial(seeds.numpy_stream, config.seed, "simulate", config.source, chunk)
    source = process.source
    patients = draw_patients(source, number=number, first=first, mix=config.mix, streams=streams)
    if config.bias.groups is not None:
        patients = replace(patients, biased=np.isin(source.groups.group, config.bias.groups)[patients.ethnicity])
    planned = Population(
        source=source,
        patients=patients,
        visits=draw_visits(source, patients, intercepts=process.course, first=visits, streams=streams),
    )
    risk = risks(planned, process.outcome)
    died = streams("outcome").random(len(risk)) < risk
    planned = replace(planned, visits=replace(planned.visits, risk=risk, died=died))
    noisy = bias.recorded(planned, label_noise=config.bias.label_noise, rng=streams("label noise"))
    planned = replace(planned, visits=replace(planned.visits, recorded=noisy))
    there = bias.represented(
        planned, under_representation=config.bias.under_representation, rng=streams("representation")
    )
    seen = alive_before(planned, died) & there[planned.visits.patient]
    often = np.bincount(planned.visits.patient[seen], minlength=number) >= config.minimum_visits
    seen &= often[planned.visits.patient]
    return Part(process=process, planned=planned, seen=seen, streams=streams)
