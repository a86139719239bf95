"""A site's events -> its cohort: prepared first, then encoded with the vocabulary that all sites share.

In:  `events/`, `site.yaml`, `groups.yaml`, the study plan.
Out: `visits/` (rolled-up patients, tokens, phenotypes, source codes; not encoded), then `cohort/` (records by split,
vocabulary, decoder).   Never: a code in a proposal that fewer than `minimum_patients` training patients carry.

    proposal = prepare(root, config=folder, plan=plan)             # says which codes this site can offer
    vocabulary = shared_vocabulary(codes_of_all_sites, plan=plan)
    encoded = encode(root, vocabulary=vocabulary, plan=plan)
    cohort = load_cohort(root)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fairsynth import artefacts, plain_json
from fairsynth.config import StudyPlan
from fairsynth.errors import ArtefactError
from fairsynth.schemas import SPLITS, IntArray
from fairsynth.visits import decoder as decoding
from fairsynth.visits.bins import AGE_BINS
from fairsynth.visits.encode import encode_patients, known_share, token_ids
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.phenotypes import phenotypes
from fairsynth.visits.prepare import VISITS, Proposal, count_cells, plan_sha256, prepare
from fairsynth.visits.records import Records
from fairsynth.visits.tasks import Outcome, outcome_of

__all__ = [
    "Cohort",
    "Encoded",
    "Proposal",
    "encode",
    "fits",
    "load_cohort",
    "plan_sha256",
    "prepare",
    "shared_vocabulary",
]

COHORT = "cohort"
_VOCABULARY_FIELDS = ("codes", "groups", "ages", "phenotypes")


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a site may say of its encoded cohort."""

    cells: IntArray  # (3, G, 2) patients by (split, group, label)
    mapped_share: float  # of token occurrences in training visits, those in the shared vocabulary


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A site's encoded patients."""

    vocabulary: Vocabulary
    train: Records
    validation: Records
    held_out: Records


def shared_vocabulary(codes: Iterable[str], *, plan: StudyPlan) -> Vocabulary:
    """The vocabulary of a study: its codes sorted and unique; groups, age bins and phenotypes from the plan."""
    names = tuple(item.name for item in phenotypes()) if plan.vocabulary.phenotypes else ()
    return Vocabulary(
        codes=tuple(sorted(set(codes))), groups=tuple(plan.groups.names), ages=tuple(AGE_BINS), phenotypes=names
    )


def encode(root: Path, *, vocabulary: Vocabulary, plan: StudyPlan) -> Encoded:
    """Encode `root/visits` into `root/cohort`. Raises ArtefactError when it was prepared for another plan."""
    manifest = artefacts.read_manifest(root / VISITS, kind=VISITS)
    if manifest["facts"].get("plan_sha256") != plan_sha256(plan):
        raise ArtefactError.of("visits of another study", where=str(root / VISITS), do="prepare the cohort again")
    names = ("patients", "phenotypes", "sources")
    patients, named, sources = (pl.read_parquet(root / VISITS / f"{name}.parquet") for name in names)
    tokens = token_ids(pl.scan_parquet(root / VISITS / "tokens.parquet"), vocabulary=vocabulary)
    rows = decoding.decoder(
        sources,
        tokens=vocabulary.names,
        label=_label_code(plan, says_readmission=bool(manifest["facts"].get("readmission_events"))),
        minimum_patients=plan.vocabulary.minimum_patients,
    )
    facts = {
        "plan_sha256": plan_sha256(plan),
        "vocabulary_sha256": vocabulary.sha256,
        "undecodable_codes": decoding.undecodable(rows, tokens=vocabulary.codes),
    }
    with artefacts.new(root, kind=COHORT, inputs={VISITS: manifest["content"]}, facts=facts) as folder:
        for name in SPLITS:
            members = patients.filter(split=name)
            encode_patients(members, tokens, phenotypes=named, vocabulary=vocabulary).save(_file(folder, name))
        artefacts.write_json(folder / "vocabulary.json", {key: getattr(vocabulary, key) for key in _VOCABULARY_FIELDS})
        rows.write_parquet(folder / "decoder.parquet")
    training = patients.filter(split="train").select("subject_id")
    return Encoded(
        cells=np.stack([count_cells(patients.filter(split=name), plan=plan) for name in SPLITS]),
        mapped_share=known_share(tokens.join(training, on="subject_id", how="semi")),
    )


def _label_code(plan: StudyPlan, *, says_readmission: bool) -> str | None:
    """The event that a label of 1 is in the source, None where no one event is."""
    outcome = outcome_of(plan.task.name)
    if outcome is Outcome.readmission:
        return "READMISSION//30D" if says_readmission else None
    return "DEATH//HOSPITAL" if outcome is Outcome.death else None


def load_cohort(root: Path) -> Cohort:
    """The cohort at `root/cohort`. Raises ArtefactError when it is missing, altered, or does not fit its vocabulary."""
    folder = root / COHORT
    manifest = artefacts.read_manifest(folder, kind=COHORT, verify=True)
    stored = plain_json.read(folder / "vocabulary.json")
    vocabulary = Vocabulary(**{key: tuple(stored[key]) for key in _VOCABULARY_FIELDS})
    splits = {name: Records.load(_file(folder, name)) for name in SPLITS}
    if vocabulary.sha256 != manifest["facts"].get("vocabulary_sha256"):
        raise ArtefactError.of("vocabulary does not match its hash", where=str(folder), do="encode the cohort again")
    if not all(fits(records, vocabulary=vocabulary) for records in splits.values()):
        raise ArtefactError.of("records outside the vocabulary", where=str(folder), do="encode the cohort again")
    return Cohort(vocabulary=vocabulary, **splits)


def fits(records: Records, *, vocabulary: Vocabulary) -> bool:
    """Whether every token, group and label of `records` is one of the vocabulary's."""
    layout = vocabulary.layout
    spans = (
        (records.codes, layout.codes.start, layout.codes.stop),
        (records.context, layout.context.start, layout.context.stop),
        (records.group, 0, len(vocabulary.groups)),
        (records.label, 0, 2),
    )
    return all(bool(((values >= start) & (values < stop)).all()) for values, start, stop in spans)


def _file(folder: Path, split_name: str) -> Path:
    return folder / f"{split_name}.safetensors"
