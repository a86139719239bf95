"""The card that travels with exported synthetic patients: where they come from, what they passed, what they are for.

In:  hashes, the study's plan, the verdict, an override.   Out: `Card`, as JSON and as Markdown.
Never: the word "anonymous"; a figure of a gate; an epsilon that no accountant computed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from fairsynth.config import Strict
from fairsynth.synthesis.release.verdict import Outside

PASSED = "These synthetic patients passed the tests of FairSynth's release gate at the site."
OVERRIDDEN = "These synthetic patients did not pass the release gate; an officer of the site released them by name."
OF_THE_GENERATOR = (
    "for one patient of the site, in the training of the generator. What the tables have beyond its tokens, such as "
    "which source code stands for a token, is drawn from the site's own patients without noise."
)
NO_PRIVACY = "No differential privacy was applied: there is no epsilon."
INTENDED_USE = "Development of software and methods, and research within the study's agreement."
NOT_FOR = (
    "Decisions about any person; attempts to find out who was in training; publication without the site's consent."
)
LIMITS = (
    "The tests compare with patients of this site only, not with those of the study's other sites.",
    "Passing tests is no proof that nobody can be recognised: the site's rules for synthetic patients still hold.",
    "Results computed on synthetic patients must be confirmed on real ones.",
)


class Privacy(Strict):
    """What an accountant computed for the generator's training, for each patient of the site."""

    epsilon: PositiveFloat
    delta: PositiveFloat
    accountant: str = Field(min_length=1)


class Gate(Strict):
    """What may be said of the gate outside."""

    verdict: Literal["PASS", "FAIL"]
    run: int
    limit: int
    members: str
    others: str
    not_tested: tuple[str, ...]
    rules_sha256: str


class Card(Strict):
    """The card's fields; hashes are SHA-256."""

    schema_: Literal["fairsynth.card/1"] = Field(default="fairsynth.card/1", alias="schema")
    statement: str
    study: str
    plan_sha256: str
    vocabulary_sha256: str
    generator_sha256: str
    events_sha256: str
    tables_sha256: str
    fairsynth: str
    patients: int
    created: str
    privacy: Privacy | None
    gate: Gate
    officer: str | None
    intended_use: str
    not_for: str = NOT_FOR
    limits: tuple[str, ...] = LIMITS


def gate_on_card(said: Outside, *, run: int, limit: int, not_tested: tuple[str, ...], rules_sha256: str) -> Gate:
    """The gate's part of the card."""
    return Gate(
        verdict=said.verdict,
        run=run,
        limit=limit,
        members=said.members,
        others=said.others,
        not_tested=not_tested,
        rules_sha256=rules_sha256,
    )


def markdown(card: Card) -> str:
    """The card for people."""
    privacy = NO_PRIVACY
    if card.privacy is not None:
        bound = f"epsilon {card.privacy.epsilon:g} at delta {card.privacy.delta:g}, by {card.privacy.accountant}"
        privacy = f"{bound}: {OF_THE_GENERATOR}"
    gate = card.gate
    rows = (
        ("study", card.study),
        ("patients", f"{card.patients:,}, synthetic"),
        ("made", f"{card.created} with FairSynth {card.fairsynth}"),
        ("gate", f"{gate.verdict}, run {gate.run} of {gate.limit} of this generator"),
        ("compared with", f"{gate.members} training patients and {gate.others} held-out patients, real"),
        ("not tested", "; ".join(gate.not_tested) or "nothing of the gate was left out"),
        ("released by", card.officer or "the gate"),
        ("differential privacy", privacy),
        ("intended use", card.intended_use),
        ("not for", card.not_for),
    )
    hashes = (
        ("plan", card.plan_sha256),
        ("vocabulary", card.vocabulary_sha256),
        ("generator", card.generator_sha256),
        ("events", card.events_sha256),
        ("tables", card.tables_sha256),
        ("rules of the gate", gate.rules_sha256),
    )
    lines = [
        "# Synthetic patients",
        "",
        card.statement,
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(text)} |" for name, text in rows),
        "",
        *(f"- {limit}" for limit in card.limits),
        "",
        "| SHA-256 of | |",
        "|---|---|",
        *(f"| {name} | `{digest}` |" for name, digest in hashes),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
