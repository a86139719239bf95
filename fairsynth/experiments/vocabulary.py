"""A study's shared vocabulary, before anything is trained: what of each site's data it says, and what it does not.

In:  a study file.   Out: `VocabularyReport`, and under `out` the sites' folders (tables if simulated, events, visits),
which a run of the study in the same folder uses again.
Never: a code that fewer than `vocabulary.minimum_patients` patients carry; a site that reads another site's folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fairsynth.config import StudyPlan
from fairsynth.errors import ConfigError
from fairsynth.experiments.study import OnEvent, Run, check, open_site
from fairsynth.extraction import extract
from fairsynth.federation.site_folder import read_site_folder
from fairsynth.visits.cohort import prepare, shared_vocabulary
from fairsynth.visits.coverage import IN_OWN_WORDS, KINDS, TOKEN_KINDS, Coverage, coverage, token_kind


@dataclass(frozen=True, kw_only=True)
class KindShares:
    """One kind of event at one site; None where fewer than `minimum_patients` patients have one.

    mapped     share of the events whose code has a standard token (None: the source's own words are the token)
    agreed     share whose token is in the study's vocabulary
    shared     share whose token at least one other site proposes
    """

    kind: str
    events: int | None
    mapped: float | None
    agreed: float | None
    shared: float | None


@dataclass(frozen=True, kw_only=True)
class UnmappedCode:
    """A code without a standard token that at least `minimum_patients` patients carry."""

    kind: str
    code: str
    unit: str | None
    description: str | None
    events: int
    patients: int


@dataclass(frozen=True, kw_only=True)
class SiteVocabulary:
    """What the vocabulary says of one site. `rare`: kind -> unmapped codes that too few patients carry to be named."""

    site: str
    kinds: tuple[KindShares, ...]
    unmapped: tuple[UnmappedCode, ...]  # the commonest first
    rare: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class AgreedCodes:
    """One kind of token in the shared vocabulary: `by_sites[n - 1]` tokens are proposed by exactly n sites."""

    kind: str
    codes: int
    by_sites: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class VocabularyReport:
    """The vocabulary of a study."""

    study: str
    minimum_patients: int
    agreed: tuple[AgreedCodes, ...]
    sites: tuple[SiteVocabulary, ...]


def survey_vocabulary(
    study: Path, *, out: Path, data: Mapping[str, Path] | None = None, on_event: OnEvent = lambda _: None
) -> VocabularyReport:
    """Extract and prepare every site of `study` under `out`, agree on a vocabulary, and count what it covers.

    Raises ConfigError, ExtractionError or CohortError.
    """
    config, sites = check(study, data=data)
    plan, run = config.plan(), Run(root=out.resolve())
    _check_folder(run, plan)
    proposed: dict[str, set[str]] = {}
    covered: dict[str, Coverage] = {}
    for site in sites:
        member = open_site(run.root / "sites" / site.entry.site, site, on_event)
        on_event({"event": "preparing", "site": member.site})
        here = read_site_folder(member.folder)
        extract(here.data, config=here.config, root=member.folder)
        proposed[member.site] = set(prepare(member.folder, config=here.config, plan=plan).codes)
        covered[member.site] = coverage(member.folder, config=here.config, plan=plan)
    return VocabularyReport(
        study=config.name,
        minimum_patients=plan.vocabulary.minimum_patients,
        agreed=_agreed(proposed, plan),
        sites=tuple(
            site_vocabulary(name, covered[name], proposed=proposed, least=plan.vocabulary.minimum_patients)
            for name in covered
        ),
    )


def _check_folder(run: Run, plan: StudyPlan) -> None:
    """A folder with a run of this study, of none, or empty; another run's visits must stay as they are."""
    if run.root.exists() and any(run.root.iterdir()) and not (run.root / "sites").is_dir():
        raise ConfigError.of("not the folder of a run", where=str(run.root), do="another --out")
    if (run.server / "plan.json").is_file() and run.plan != plan:
        raise ConfigError.of("a run of another plan is here", where=str(run.root), do="another --out")


def _agreed(proposed: Mapping[str, set[str]], plan: StudyPlan) -> tuple[AgreedCodes, ...]:
    """The shared vocabulary by kind, and by how many sites proposed each token."""
    proposers = Counter(token for tokens in proposed.values() for token in tokens)
    codes = shared_vocabulary(proposers, plan=plan).codes
    counts = Counter((token_kind(token), proposers[token]) for token in codes)
    numbers = range(1, len(proposed) + 1)
    return tuple(
        AgreedCodes(
            kind=kind,
            codes=sum(counts[kind, number] for number in numbers),
            by_sites=tuple(counts[kind, number] for number in numbers),
        )
        for kind in dict.fromkeys(TOKEN_KINDS.values())
    )


def site_vocabulary(site: str, found: Coverage, *, proposed: Mapping[str, set[str]], least: int) -> SiteVocabulary:
    """What the vocabulary says of one site; cells of fewer than `least` patients are suppressed."""
    everywhere: set[str] = set().union(*proposed.values())
    elsewhere: set[str] = set().union(*(tokens for name, tokens in proposed.items() if name != site))
    unmapped = found.codes.filter(~pl.col("standard"), ~pl.col("kind").is_in(IN_OWN_WORDS))
    rare = unmapped.filter(pl.col("patients") < least).group_by("kind").len().sort("kind")
    return SiteVocabulary(
        site=site,
        kinds=tuple(
            _shares(kind, found, agreed=everywhere, shared=elsewhere)
            if found.patients.get(kind, 0) >= least
            else KindShares(kind=kind, events=None, mapped=None, agreed=None, shared=None)
            for kind in KINDS.values()
            if kind in found.patients
        ),
        unmapped=tuple(
            UnmappedCode(**row) for row in unmapped.filter(pl.col("patients") >= least).drop("standard").to_dicts()
        ),
        rare=dict(rare.iter_rows()),
    )


def _shares(kind: str, found: Coverage, *, agreed: set[str], shared: set[str]) -> KindShares:
    codes, tokens = found.codes.filter(kind=kind), found.tokens.filter(kind=kind)
    events = int(codes["events"].sum())

    def share(rows: pl.DataFrame) -> float:
        return int(rows["events"].sum()) / events

    return KindShares(
        kind=kind,
        events=events,
        mapped=None if kind in IN_OWN_WORDS else share(codes.filter("standard")),
        agreed=share(tokens.filter(pl.col("token").is_in(list(agreed)))),
        shared=share(tokens.filter(pl.col("token").is_in(list(shared)))),
    )
