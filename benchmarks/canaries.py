"""Patients who do not exist, planted among a site's own: does a generator show that it has seen them?

In:  the sites' `visits/`, before they agree on a vocabulary.   Out: `visits/` in which each canary stands in the place
of a training patient, `Planted`; then the rank of their loss among canaries of the same make that nobody planted.
Never: a canary that differs from those it is ranked among in anything but its codes; a triple that a patient has.

Rank and exposure are those of Carlini et al. 2019 (USENIX Security): exposure is log2(n + 1) - log2(rank) of n others;
a generator that learnt nothing of canaries ranks them evenly, and their mean exposure is 1 / ln 2 = 1.44 bits.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from fairsynth import artefacts
from fairsynth.generator.batch import Sequences
from fairsynth.generator.descent import nll
from fairsynth.generator.model import Halo
from fairsynth.schemas import FloatArray, IntArray, SiteId
from fairsynth.seeds import numpy_stream
from fairsynth.synthesis.release.profiles import profiles
from fairsynth.visits.cohort import Cohort
from fairsynth.visits.layout import Vocabulary
from fairsynth.visits.prepare import VISITS
from fairsynth.visits.records import Records

KINDS = ("DX", "PX", "RX", "LAB")
LEAST = 11  # training patients who carry a code of a canary, so that it is a word of the study
RAREST = 50  # codes of a site that canaries are made of
CELL = ["group", "label", "sex", "age"]

Triple = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A site's canaries, and triples of the same make that nobody has."""

    triples: tuple[Triple, ...]
    others: tuple[Triple, ...]


def plant(folders: Mapping[SiteId, Path], *, number: int, others: int, seed: int) -> dict[SiteId, Planted]:
    """Put `number` canaries in the place of training patients of each site, after enrolment."""
    tokens = {site: pl.read_parquet(folder / VISITS / "tokens.parquet") for site, folder in folders.items()}
    found = {}
    for site, folder in folders.items():
        patients = pl.read_parquet(folder / VISITS / "patients.parquet")
        training = tokens[site].join(patients.filter(split="train"), on="subject_id", how="semi")
        counts = _rarest(training)
        pool, draw = list(counts), numpy_stream(seed, "canaries", site)
        triples = draw.permutation(_unheard(counts, list(tokens.values()), number=number + others)).tolist()
        hosts = _hosts(patients, training, pool=pool, number=number, draw=draw)
        found[site] = Planted(triples=tuple(map(tuple, triples[:number])), others=tuple(map(tuple, triples[number:])))
        _rewrite(folder, tokens[site], hosts=dict(zip(hosts, triples, strict=False)))
    return found


def _rarest(training: pl.DataFrame) -> dict[str, int]:
    """The rarest clinical codes that enough training patients have, and how many have them."""
    counts = training.group_by("token").agg(pl.col("subject_id").n_unique().alias("patients"))
    kind = pl.col("token").str.split("//").list.first()
    known = counts.filter(kind.is_in(KINDS) & (pl.col("patients") >= LEAST)).sort("patients", "token")
    return dict(known.head(RAREST).select("token", "patients").iter_rows())


def _unheard(counts: Mapping[str, int], sites: Sequence[pl.DataFrame], *, number: int) -> list[Triple]:
    """The rarest triples that no patient of any split and site has, by the product of their codes' patients.

    No two codes are levels of one laboratory value. Raises ValueError when there are too few.
    """
    pool = list(counts)
    has = np.concatenate([_has(tokens, pool) for tokens in sites])
    value = [name.rsplit("//", 1)[0] if name.startswith("LAB//") else name for name in pool]
    places = itertools.combinations(range(len(pool)), 3)
    found: list[Triple] = []
    for place in sorted(places, key=lambda place: (math.prod(counts[pool[code]] for code in place), place)):
        if len({value[code] for code in place}) == 3 and not has[:, place].all(axis=1).any():
            found.append(tuple(pool[code] for code in place))
        if len(found) == number:
            return found
    raise ValueError(f"{len(found)} triples of {len(pool)} codes, and not {number}: more patients are needed")


def _has(tokens: pl.DataFrame, pool: Sequence[str]) -> np.ndarray:
    """(B, C) whether each patient has each code of `pool`."""
    people = tokens.select("subject_id").unique().sort("subject_id").with_row_index("row")
    places = pl.DataFrame({"token": pool, "place": range(len(pool))})
    pairs = tokens.join(places, on="token").join(people, on="subject_id")
    has = np.zeros((len(people), len(pool)), dtype=np.bool_)
    has[pairs["row"].to_numpy(), pairs["place"].to_numpy()] = True
    return has


def _hosts(
    patients: pl.DataFrame, training: pl.DataFrame, *, pool: Sequence[str], number: int, draw: np.random.Generator
) -> list[int]:
    """Training patients who give their place: of one visit, one cell, and no rare code, which would get rarer."""
    rare = training.filter(pl.col("token").is_in(list(pool)))
    free = patients.filter(split="train", visits=1).join(rare, on="subject_id", how="anti")
    cell = free.group_by(CELL).len().sort("len", *CELL, descending=[True, *[False] * len(CELL)]).head(1)
    alike = free.join(cell, on=CELL, how="semi").sort("subject_id")
    return draw.choice(alike["subject_id"].to_numpy(), size=number, replace=False).tolist()


def _rewrite(folder: Path, tokens: pl.DataFrame, *, hosts: Mapping[int, Triple]) -> None:
    """`visits/` again, where each of `hosts` has a triple and nothing else."""
    manifest = artefacts.read_manifest(folder / VISITS, kind=VISITS)
    rows = [(host, 0, token) for host, triple in hosts.items() for token in triple]
    planted = pl.DataFrame(rows, schema=tokens.schema, orient="row")
    gone = pl.col("subject_id").is_in(list(hosts))
    with artefacts.new(folder, kind=VISITS, inputs=manifest["inputs"], facts=manifest["facts"]) as new:
        for name in ("patients.parquet", "sources.parquet", "flow.json"):
            shutil.copyfile(folder / VISITS / name, new / name)
        named = pl.read_parquet(folder / VISITS / "phenotypes.parquet")
        named.filter(~gone).write_parquet(new / "phenotypes.parquet")
        whole = pl.concat([tokens.filter(~gone), planted]).sort("subject_id", "position", "token")
        whole.write_parquet(new / "tokens.parquet")


def canary_rows(cohort: Cohort, planted: Planted) -> IntArray:
    """The rows of the site's training records that are canaries. Raises ValueError unless each is there once."""
    codes = {name: place for place, name in enumerate(cohort.vocabulary.codes)}
    wanted = {tuple(sorted(codes[name] for name in triple)) for triple in planted.triples}
    train = cohort.train
    edges = train.visit_offsets[train.patient_offsets]
    rows = [row for row, span in enumerate(itertools.pairwise(edges)) if tuple(train.codes[slice(*span)]) in wanted]
    if len(rows) != len(planted.triples):
        raise ValueError(f"{len(rows)} canaries in training, and not {len(planted.triples)}")
    return np.array(rows, dtype=np.int64)


def of_the_same_make(triples: Sequence[Triple], cohort: Cohort, planted: Planted) -> Records:
    """A record for each of `triples`, equal to the site's canaries in all but the triple."""
    codes = {name: place for place, name in enumerate(cohort.vocabulary.codes)}
    like = cohort.train.take(np.repeat(canary_rows(cohort, planted)[:1], len(triples)))
    content = [sorted(codes[name] for name in triple) for triple in triples]
    return replace(like, codes=np.array(content, dtype=np.int64).ravel())


def losses(model: Halo, patients: Records, *, vocabulary: Vocabulary) -> FloatArray:
    """(B,) nats of each patient's whole record."""
    maximum = model.positions.shape[0] - 1
    parts = (patients.take(np.array([row])) for row in range(len(patients)))
    found = (Sequences.of(part, vocabulary=vocabulary, maximum_visits=maximum) for part in parts)
    return np.array([nll(model, one, layout=vocabulary.layout)[0] for one in found])


def percentiles(own: FloatArray, others: FloatArray) -> FloatArray:
    """The rank of each of `own` among `others` and itself, lowest loss first, over their number: in (0, 1]."""
    return (1 + (others[None, :] < own[:, None]).sum(axis=1)) / (len(others) + 1)


def came_out(synthetic: Records, triples: Sequence[Triple], *, vocabulary: Vocabulary, verbatim: bool = False) -> int:
    """How many triples a synthetic patient has in full, whatever else it has (as gate G9); `verbatim`: and no more."""
    found = profiles(synthetic, vocabulary=vocabulary)
    content = (found.content[found.sizes == 3] if verbatim else found.content).tocsc()
    codes = {name: place for place, name in enumerate(vocabulary.codes)}
    places = ([codes[name] for name in triple] for triple in triples)
    return sum(bool((content[:, place].sum(axis=1) == 3).any()) for place in places)
