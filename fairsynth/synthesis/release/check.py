"""The gate at one site: a candidate is counted, examined, and its verdict kept in `release/`.

In:  the site's folder, and perhaps the folder of `fairsynth generate`.   Out: `Report`; the artefact `release/`.
Never: a gate that computes before its run is counted on disk; anything that is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import ValidationError

from fairsynth import artefacts, plain_json
from fairsynth.config import Strict
from fairsynth.errors import ArtefactError, ConfigError, Problem, ReleaseBlocked
from fairsynth.synthesis.decode import AT_HOME
from fairsynth.synthesis.release import runs
from fairsynth.synthesis.release.candidate import Candidate, candidate
from fairsynth.synthesis.release.format import file_problems, rare_source_codes
from fairsynth.synthesis.release.gates import GateResult
from fairsynth.synthesis.release.profiles import BoolArray
from fairsynth.synthesis.release.rules import ReleaseRules
from fairsynth.synthesis.release.verdict import Evidence, Verdict, examine, outside
from fairsynth.visits.cohort import COHORT, Cohort, load_cohort
from fairsynth.visits.layout import Vocabulary

KIND = "release"
VERDICT, OUTSIDE = "verdict.json", "outside.json"
_LESS_LEARNT = (
    "train with fewer passes, a smaller generator or differential privacy; a new --seed of the same generator is "
    "another run; do not remove the patients that match, that tells who was in training"
)
ADVICE = {
    "G0": "more real patients, or an officer who signs: --officer-override NAME --reason TEXT",
    "G8": "raise vocabulary.minimum_patients to 11 or more, and train again",
    "G11": "report it: what FairSynth writes should pass",
}


class Asked(Strict):
    """What else the gate is to look at: the codes of planted patients, and codes that must not be guessed."""

    canaries: tuple[tuple[str, ...], ...] = ()
    secrets: tuple[str, ...] = ()


class Report(Strict):
    """A verdict, and which run of the gate it is from."""

    verdict: Verdict
    run: int
    limit: int
    candidate: str
    generator: str


def check_release(root: Path, *, synthetic: Path | None = None, asked: Asked | None = None) -> Report:
    """Examine the synthetic patients of the site at `root`, and keep the verdict in `root/release`.

    The same patients, cohort and questions are examined once: the verdict that is kept is returned, and no run counted.
    Raises ReleaseBlocked when the generator has had its runs, ConfigError on an unknown secret, ArtefactError when
    something is missing or altered.
    """
    asked, rules = asked or Asked(), ReleaseRules()
    found = candidate(root, synthetic)
    inputs = _inputs(found, rules, asked)
    if kept := _kept(root, inputs):
        return kept
    cohort = load_cohort(root)
    if unknown := set(asked.secrets) - set(cohort.vocabulary.codes):
        raise ConfigError.of("no such code in the vocabulary", where=f"{len(unknown)} of the --secret codes")
    number = runs.begin(root, generator=found.generator, candidate=found.sha256)
    verdict = examine(_evidence(found, cohort, rules=rules, asked=asked), rules)
    report = Report(verdict=verdict, run=number, limit=runs.LIMIT, candidate=found.sha256, generator=found.generator)
    facts = {"release": AT_HOME, "outcome": verdict.outcome.value}
    with artefacts.new(root, kind=KIND, inputs=inputs, facts=facts) as folder:
        artefacts.write_json(folder / VERDICT, report.model_dump(mode="json"))
        artefacts.write_json(folder / OUTSIDE, outside(verdict).model_dump(mode="json"))
    runs.record(root, "verdict", generator=found.generator, candidate=found.sha256, outcome=verdict.outcome.value)
    return report


def report_of(found: Candidate) -> Report:
    """The verdict that is kept of this candidate. Raises ReleaseBlocked when there is none."""
    try:
        manifest = artefacts.read_manifest(found.root / KIND, kind=KIND, verify=True)
        report = _read(found.root)
    except ArtefactError:
        manifest, report = {}, None
    cohort = artefacts.read_manifest(found.root / COHORT, kind=COHORT)["content"]
    told = (manifest.get("inputs") or {}) | {"code": manifest.get("code_version")}
    wanted = {"candidate": found.sha256, "cohort": cohort, "rules": ReleaseRules().sha256}
    wanted["code"] = artefacts.code_version()
    if report is None or any(told.get(name) != value for name, value in wanted.items()):
        raise ReleaseBlocked.of(
            "the gate has not seen these patients",
            where=str(found.folder),
            expected="a verdict of this version, on exactly these patients and this cohort",
            do="fairsynth release check SITE_FOLDER, with the same --synthetic",
        )
    return report


def blocked(report: Report, *, where: Path) -> ReleaseBlocked:
    """The error that names every gate that says no, without a count of patients."""
    return ReleaseBlocked(_problem(one, where) for one in report.verdict.blocking)


def read_asked(canaries: Path | None, secrets: Sequence[str]) -> Asked:
    """What an operator asks for; `canaries` is a JSON list with the list of codes of each planted patient."""
    if canaries is None:
        return Asked(secrets=tuple(secrets))
    try:
        planted = plain_json.read(canaries, error=ConfigError)
        return Asked(canaries=planted, secrets=tuple(secrets))
    except (ConfigError, ValueError):
        raise ConfigError.of(
            "no list of canaries", where=str(canaries), expected='JSON such as [["DX//CCS//49", "DX//CCS//157"]]'
        ) from None


def _problem(one: GateResult, where: Path) -> Problem:
    return Problem(
        what=f"{one.gate} {one.title}: {one.verdict.value}",
        where=str(where / KIND / VERDICT),
        do=ADVICE.get(one.gate, _LESS_LEARNT),
    )


def _inputs(found: Candidate, rules: ReleaseRules, asked: Asked) -> dict[str, str]:
    return {
        "candidate": found.sha256,
        "cohort": artefacts.read_manifest(found.root / COHORT, kind=COHORT)["content"],
        "rules": rules.sha256,
        "asked": artefacts.sha256_json(asked.model_dump(mode="json")),
    }


def _kept(root: Path, inputs: Mapping[str, str]) -> Report | None:
    """The verdict that is kept, if it is whole, of this version and of these inputs."""
    try:
        manifest = artefacts.read_manifest(root / KIND, kind=KIND, verify=True)
        same = manifest["inputs"] == inputs and manifest["code_version"] == artefacts.code_version()
        return _read(root) if same else None
    except ArtefactError:
        return None


def _read(root: Path) -> Report:
    path = root / KIND / VERDICT
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise ArtefactError.of("not a verdict", where=str(path), do="fairsynth release check again") from None


def _evidence(found: Candidate, cohort: Cohort, *, rules: ReleaseRules, asked: Asked) -> Evidence:
    return Evidence(
        train=cohort.train,
        held_out=cohort.held_out,
        synthetic=found.records,
        vocabulary=cohort.vocabulary,
        seed=int(found.sha256[:15], 16),
        writable=_writable(found.root, cohort.vocabulary),
        secrets=asked.secrets,
        canaries=asked.canaries,
        problems=file_problems(found.folder, root=found.root),
        rare=rare_source_codes(found.folder, root=found.root, least=rules.rare_support),
    )


def _writable(root: Path, vocabulary: Vocabulary) -> BoolArray:
    """(C,) codes that the site's decoder has source codes of; others are left out of events and tables."""
    known = set(pl.read_parquet(root / COHORT / "decoder.parquet", columns=["token"])["token"].to_list())
    return np.array([code in known for code in vocabulary.codes], dtype=np.bool_)
