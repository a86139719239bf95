"""What ran: names and values for the end of a page.

In:  `StudyRecord`.   Out: `Fact` values.
Never: a count of people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fairsynth.artefacts import code_version
from fairsynth.federation.plans import plan_sha256
from fairsynth.report.study import StudyRecord
from fairsynth.report.view import listed

_KNOWN = {"event", "name", "plan_sha256", "roster", "seed", "quorum", "required"}  # printed elsewhere
_SETTINGS = ("task", "split", "groups", "vocabulary", "objective", "generator", "training", "augmentation", "audit")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A name and its value; `hash` values are set in a fixed-width face."""

    name: str
    value: str
    hash: bool = False


def run(study: StudyRecord) -> Iterator[Fact]:
    """The study and the journal's own words on how it started."""
    yield Fact(name="Study", value=study.plan.name)
    yield Fact(name="Plan (SHA-256)", value=plan_sha256(study.plan), hash=True)
    for name, value in study.event("study").items():
        if name not in _KNOWN:
            yield Fact(name=name.replace("_", " ").capitalize(), value=_plain(value))
    yield Fact(name="Report made by", value=f"fairsynth {code_version()}")


def made(study: StudyRecord) -> Iterator[Fact]:
    """The vocabulary; the generator and the time it took, where there is a journal."""
    yield Fact(name="Vocabulary (SHA-256)", value=study.enrolment.vocabulary_sha256, hash=True)
    yield Fact(name="Codes in the vocabulary", value=f"{len(study.enrolment.codes):,}")
    last = study.arm("fairsynth")
    if last and last[-1].weights_sha256:
        yield Fact(name="FairSynth generator (SHA-256)", value=last[-1].weights_sha256, hash=True)
    if study.rounds:
        seconds = sum(line.seconds or 0.0 for line in study.rounds)
        yield Fact(name="Time in rounds", value=f"{seconds:,.0f} s over {len(study.rounds)} rounds of both generators")


def settings(study: StudyRecord, *more: str) -> Iterator[Fact]:
    """Every setting of the plan that a page of any study has, and those of the fields `more`."""
    for name in (*_SETTINGS, *more):
        value = getattr(study.plan, name).model_dump(mode="json", by_alias=True)
        yield Fact(name=name.capitalize(), value=_plain(value))


def _plain(value: Any) -> str:
    """A JSON value as a reader's text."""
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return listed([_plain(item) for item in value])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
