"""Codes that give the outcome away: how well each code alone predicts the label.

In:  shards of an events artefact, the cohort's records and patients, the site's `exclude_codes`.
Out: `LeaksQuality` and findings.
Never: a code that fewer than the minimum cell of patients carry; a count between 1 and the minimum cell, or a rate from
which one follows.

A patient carries a code that occurs in the record's last visit and is known at the prediction time (diagnoses and
procedures of an open visit: whenever they were coded, as in the tokens). Codes of kinds that never become tokens are
looked at too, whenever they occur: they show what a rule must not turn into a token. Of T patients with P positives, n
carry a code and k of them are positive. The rule, with Wilson's lower bounds at 5 % over all codes (Bonferroni):

    gives away   PPV = k/n >= 0.9, lower bound >= 0.6; or the code's presence or absence alone has an AUROC >= 0.9,
                 lower bound >= 0.8
    suspect      PPV >= 0.5 and likelihood ratio LR+ = (k/P) / ((n-k)/(T-P)) >= 5, lower bound of LR+ > 3

A laboratory value is known when it is measured: it is never suspect, and one that gives away is a warning, no error.

Cardiac arrest (ICD-9-CM 427.5) in MIMIC-III has a PPV near 0.6 and an LR+ near 8; septic shock, the severest of the
ordinary diagnoses, 0.4 and 4 to 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from fairsynth.config import Strict
from fairsynth.fairness.intervals import wilson
from fairsynth.governance.disclosure import Count
from fairsynth.quality.events import kind
from fairsynth.quality.findings import Finding, error, note, warning
from fairsynth.quality.parts import part
from fairsynth.visits.rollup import CODED_KINDS, KINDS
from fairsynth.visits.shards import Shards

Strength = Literal["gives away", "suspect"]
Status = Literal["enters records", "left out by exclude_codes", "never a token"]

ERROR_RATE = 0.05  # of one false alarm among all codes looked at
SURE_PPV, SURE_PPV_LEAST = 0.9, 0.6
SURE_AUROC, SURE_AUROC_LEAST = 0.9, 0.8
SUSPECT_PPV, SUSPECT_RATIO, SUSPECT_RATIO_LEAST = 0.5, 5.0, 3.0
NAMED_CODES = 10  # in one finding


class LeakyCode(Strict):
    """A code or token that is closely tied to the outcome. Rates are None where they would give a small count away."""

    code: str
    description: str | None
    strength: Strength
    status: Status
    patients: Count  # n, who carry it
    positives: Count  # k, of these
    ppv: float | None
    share_of_positives: float | None
    auroc: float | None
    lift: float | None


class LeaksQuality(Strict):
    """What was looked at, and the codes that stand out, the closest first."""

    codes: int  # source codes and tokens that enough patients carry
    too_rare: int  # that too few carry to be judged
    leaky: tuple[LeakyCode, ...]
    exclusions_without_code: tuple[str, ...]  # entries of exclude_codes that no code of this site begins with


def carriers(shards: Shards, *, last: pl.DataFrame) -> pl.DataFrame:
    """Which source codes each record's last visit has: subject_id, code, unique.

    `last` has subject_id, visit_id, predicted_at, open: one row a patient.
    """
    known = (pl.col("time") <= pl.col("predicted_at")).fill_null(value=False)
    whenever = ~kind().is_in(KINDS) | (kind().is_in(CODED_KINDS) & pl.col("open"))
    found = [
        shard.filter(pl.col("visit_id").is_not_null())
        .join(last.lazy(), on=["subject_id", "visit_id"], how="inner")
        .filter(known | whenever)
        .select("subject_id", "code")
        .unique()
        .collect(engine="streaming")
        for shard in shards
    ]
    return pl.concat(found)


def describe_leaks(
    carried: pl.DataFrame, *, labels: pl.DataFrame, placed: pl.DataFrame, exclude: tuple[str, ...], minimum: int
) -> LeaksQuality:
    """The codes among `carried` (subject_id, code: source codes and tokens) that stand out.

    `labels` has subject_id, label; `placed` is what codes.place gives of the source codes.
    """
    total, positives = len(labels), int(labels["label"].sum())
    counts = (
        carried.join(labels, on="subject_id", how="inner")
        .group_by("code")
        .agg(pl.len().cast(pl.Int64).alias("n"), pl.col("label").sum().cast(pl.Int64).alias("k"))
    )
    common = counts.filter(pl.col("n") >= minimum).with_columns(
        ppv=pl.col("k") / pl.col("n"),
        auroc=(1 + pl.col("k") / positives - (pl.col("n") - pl.col("k")) / (total - positives)) / 2,
    )
    judged = Judge(total=total, positives=positives, tests=max(len(common), 1))
    status = _statuses(placed, exclude=exclude)
    near = common.filter((pl.col("ppv") >= SUSPECT_PPV) | ((pl.col("auroc") - 0.5).abs() >= SURE_AUROC - 0.5))
    leaky = [
        _describe(row, strength, judged, description=description, status=state, minimum=minimum)
        for row in near.sort("ppv", "n", "code", descending=[True, True, False]).iter_rows(named=True)
        if (strength := _told(judged.strength(row["n"], row["k"]), row, minimum)) is not None
        and not (strength == "suspect" and _is_value(row["code"]))
        for description, state in [status.get(row["code"], (None, "enters records"))]
    ]
    codes = placed["code"].unique()
    return LeaksQuality(
        codes=len(common),
        too_rare=len(counts) - len(common),
        leaky=tuple(leaky),
        exclusions_without_code=tuple(prefix for prefix in exclude if not codes.str.starts_with(prefix).any()),
    )


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The rule at the head of this module, for T patients, P of them positive, and so many codes looked at."""

    total: int
    positives: int
    tests: int

    def strength(self, n: int, k: int) -> Strength | None:
        """How closely a code that n patients carry, k of them positive, is tied to the outcome."""
        if self._tells(n, k) or self._separates(n, k) or self._separates(self.total - n, self.positives - k):
            return "gives away"
        return "suspect" if self._is_suspect(n, k) else None

    def _least(self, successes: int, trials: int) -> float:
        """The lower bound of a proportion, corrected for the number of codes."""
        return wilson(successes, trials, confidence=1 - 2 * ERROR_RATE / self.tests)[0] if trials else 0.0

    def _tells(self, n: int, k: int) -> bool:
        return n > 0 and k / n >= SURE_PPV and self._least(k, n) >= SURE_PPV_LEAST

    def _separates(self, n: int, k: int) -> bool:
        """Whether those with the code are nearly all the positives and hardly anybody else."""
        negatives = self.total - self.positives
        spared = negatives - (n - k)
        if not (self.positives and negatives) or k / self.positives + spared / negatives < 2 * SURE_AUROC:
            return False
        return self._least(k, self.positives) + self._least(spared, negatives) >= 2 * SURE_AUROC_LEAST

    def _is_suspect(self, n: int, k: int) -> bool:
        base = self.positives / self.total
        if n == 0 or k / n < SUSPECT_PPV or base in (0, 1):
            return False
        return _ratio(k / n, base) >= SUSPECT_RATIO and _ratio(self._least(k, n), base) > SUSPECT_RATIO_LEAST


def leak_findings(found: LeaksQuality) -> Iterator[Finding]:
    """Codes to exclude, codes to look at, and rules that do nothing."""
    entering = [code for code in found.leaky if code.status == "enters records"]
    sure = [code.code for code in entering if code.strength == "gives away" and not _is_value(code.code)]
    likely = [code.code for code in entering if code.code not in sure]
    if sure:
        do = "list them (of a token: the codes behind it) under `exclude_codes` in site.yaml"
        yield error(f"{_number(sure)} telling the outcome alone", where=_named(sure), do=do)
    if likely:
        do = "decide whether each is known at the prediction time; if not, list it under `exclude_codes` in site.yaml"
        yield warning(f"{_number(likely)} closely tied to the outcome", where=_named(likely), do=do)
    away = [code.code for code in found.leaky if code.status == "left out by exclude_codes"]
    if away:
        yield note(f"{_number(away)} closely tied to the outcome, left out by `exclude_codes`", where=_named(away))
    silent = [code.code for code in found.leaky if code.status == "never a token"]
    if silent:
        what = f"{_number(silent)} closely tied to the outcome, of kinds that never become tokens"
        yield note(what, where=_named(silent), do="let no rule make them diagnoses, procedures, drugs or units")
    if found.exclusions_without_code:
        what = "entries of `exclude_codes` that no code of this site begins with"
        yield note(what, where=_named(found.exclusions_without_code), do="check their spelling; else leave them")
    if found.too_rare:
        what = f"codes and tokens that too few patients carry to be judged: {found.too_rare:,}"
        yield note(what, where="leak check", do="exclude codes that are known to give the outcome away all the same")


def _told(strength: Strength | None, row: dict[str, Any], minimum: int) -> Strength | None:
    """The strength as it is told: of few carriers, "gives away" would tell how few of them lack the outcome."""
    mixed = 0 < row["k"] < row["n"] < 2 * minimum
    return "suspect" if strength is not None and mixed else strength


def _is_value(code: str) -> bool:
    """Whether a code is a laboratory value: known when it is measured, so never coded in retrospect."""
    return code.startswith("LAB//")


def _number(names: Sequence[str]) -> str:
    return f"{len(names)} code{'' if len(names) == 1 else 's'} or token{'' if len(names) == 1 else 's'}"


def _named(names: Sequence[str]) -> str:
    further = len(names) - NAMED_CODES
    return ", ".join(names[:NAMED_CODES]) + (f" and {further} more" if further > 0 else "")


def _ratio(probability: float, base: float) -> float:
    """The likelihood ratio of a code that lifts the odds of the outcome from `base` to `probability`."""
    if probability >= 1:
        return float("inf")
    return probability / (1 - probability) / (base / (1 - base))


def _statuses(placed: pl.DataFrame, *, exclude: tuple[str, ...]) -> dict[str, tuple[str | None, Status]]:
    """Source code -> its description, and whether it enters records. What is not here is a token."""
    found: dict[str, tuple[str | None, Status]] = {}
    grouped = placed.group_by("code").agg(pl.col("description").first(), pl.col("enters").any())
    for code, description, enters in grouped.iter_rows():
        status: Status = "enters records" if enters else "never a token"
        if enters and code.startswith(exclude):
            status = "left out by exclude_codes"
        found[code] = (description, status)
    return found


def _describe(
    row: dict[str, Any], strength: Strength, judge: Judge, *, description: str | None, status: Status, minimum: int
) -> LeakyCode:
    shown = part(row["k"], row["n"], minimum=minimum)
    exact = shown.share is not None
    return LeakyCode(
        code=row["code"],
        description=description,
        strength=strength,
        status=status,
        patients=part(row["n"], judge.total, minimum=minimum).count,
        positives=shown.count,
        ppv=round(row["ppv"], 3) if exact else None,
        share_of_positives=round(row["k"] / judge.positives, 3) if exact else None,
        auroc=round(row["auroc"], 3) if exact else None,
        lift=round(row["ppv"] * judge.total / judge.positives, 2) if exact else None,
    )
