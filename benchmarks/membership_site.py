"""One site after a study: what its generators and synthetic patients tell of who was in training.

In:  a finished run, the canaries planted at the site.   Out: figures, members (training patients) beside others (held
out).   Never: canaries among the members; a threshold other than the gate's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.canaries import Planted, came_out, canary_rows, losses, of_the_same_make, percentiles
from fairsynth.config import StudyPlan
from fairsynth.experiments.study import Run
from fairsynth.federation.settling import Home, own_generator
from fairsynth.federation.terms import load_terms
from fairsynth.generator import checkpoint
from fairsynth.generator.base_rates import at_home, base_rates
from fairsynth.generator.model import build, initial_weights
from fairsynth.generator.train import Study, Totals, train
from fairsynth.schemas import Arrays, SiteId
from fairsynth.seeds import numpy_stream, stream
from fairsynth.synthesis.release.attacks import Membership
from fairsynth.synthesis.release.check import Asked, check_release
from fairsynth.synthesis.release.model_attack import model_membership
from fairsynth.synthesis.release.rules import ReleaseRules
from fairsynth.synthesis.release.verdict import Evidence, Verdict, examine
from fairsynth.synthesis.synthesise import synthesise
from fairsynth.visits.cohort import COHORT, Cohort, load_cohort
from fairsynth.visits.records import Records

RULES = ReleaseRules()
ONE_SIDED, TWO_SIDED = 1.644854, 1.959964  # standard errors of a 95 % limit, and of either end of a 95 % interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Attacked:
    """`generators` as the site uses them: the one `common` to all sites, and its `own`, if it is settled at home; the
    last of them draws the patients that the site releases."""

    root: Path
    cohort: Cohort
    plan: StudyPlan
    generators: dict[str, Arrays]
    planted: Planted

    @classmethod
    def of(cls, run: Run, name: SiteId, *, planted: Planted) -> Attacked:
        """The site of that name in `run`."""
        root, plan = run.site(name), run.plan
        cohort = load_cohort(root)
        weights = checkpoint.load(run.server / "generator-fairsynth", kind="generator-fairsynth").weights
        rates = load_terms(run.server, plan=plan).rates(cohort, plan=plan)
        generators = {"common": at_home(weights, rates)}
        if plan.augmentation.home_rounds:
            home = Home(site=name, cohort=cohort, rates=rates, plan=plan)
            generators["own"] = own_generator(root, home, weights=weights)
        return cls(root=root, cohort=cohort, plan=plan, generators=generators, planted=planted)

    def figures(self, *, attacked: int) -> dict[str, object]:
        """The gate's verdict on sets of patients, the attack on each generator, and the canaries' ranks by each.

        `attacked` members and others at most are used for the attack on a generator.
        """
        *_, drawing = self.generators.values()
        plain = Records.load(self.root / "synthetic" / "plain.safetensors")
        ten = self.ten_times(drawing)
        verdicts = {
            "released": check_release(self.root, asked=Asked(canaries=self.planted.triples)).verdict,
            "plain": self.judged(plain),
            "ten times": self.judged(ten),
        }
        return {
            "sets": {name: told(one) for name, one in verdicts.items()},
            "generators": {name: attack(self.on_model(one, most=attacked)) for name, one in self.generators.items()},
            "percentiles": {name: self.ranks(one) for name, one in (self.untrained | self.generators).items()},
            "ten times": self.emitted(ten),
        }

    @property
    def untrained(self) -> dict[str, Arrays]:
        """The control that knows of a canary no more than how often each of its codes occurs at the site."""
        vocabulary = self.cohort.vocabulary
        begin = initial_weights(vocabulary, self.plan.generator, seed=stream(self.plan.seed, "initial-weights"))
        return {"untrained": at_home(begin, base_rates(self.cohort.train, vocabulary=vocabulary))}

    def control(self, *, copies: int, epochs: int) -> dict[str, object]:
        """The canaries of a generator that learnt on from the site's patients alone, each canary `copies` times."""
        again = np.repeat(canary_rows(self.cohort, self.planted), copies - 1)
        records = self.cohort.train.take(np.concatenate([np.arange(len(self.cohort.train)), again]))
        totals = Totals(patients=len(records), positions=(records.visits + len(records)) / len(records))
        weights = train(
            self.generators["common"],
            records=records,
            study=Study(vocabulary=self.cohort.vocabulary, plan=self.plan, totals=totals),
            coefficients=None,
            epochs=epochs,
            seed=stream(self.plan.seed, "control"),
        ).weights
        found = {"percentiles": self.ranks(weights), "ten times": self.emitted(self.ten_times(weights))}
        return {"copies": copies, "epochs": epochs, **found}

    def ten_times(self, weights: Arrays) -> Records:
        """Ten synthetic patients for each training patient, in the site's own mix."""
        number, seed = 10 * len(self.cohort.train), stream(self.plan.seed, "ten times")
        return synthesise(weights, cohort=self.cohort, plan=self.plan, cells=None, number=number, seed=seed)

    def judged(self, synthetic: Records) -> Verdict:
        """The gate's verdict on patients whose files nobody writes."""
        known = set(pl.read_parquet(self.root / COHORT / "decoder.parquet", columns=["token"])["token"])
        evidence = Evidence(
            train=self.cohort.train,
            held_out=self.cohort.held_out,
            synthetic=synthetic,
            vocabulary=self.cohort.vocabulary,
            seed=self.plan.seed,
            writable=np.array([code in known for code in self.cohort.vocabulary.codes], dtype=np.bool_),
            canaries=self.planted.triples,
        )
        return examine(evidence, RULES)

    def on_model(self, weights: Arrays, *, most: int) -> Membership:
        """The loss-threshold attack, canaries left out."""
        draw, train = numpy_stream(self.plan.seed, "attacked"), self.cohort.train
        real = np.setdiff1d(np.arange(len(train)), canary_rows(self.cohort, self.planted))
        others = np.arange(len(self.cohort.held_out))
        return model_membership(
            build(weights, vocabulary=self.cohort.vocabulary, config=self.plan.generator),
            train=train.take(np.sort(draw.permutation(real)[:most])),
            held_out=self.cohort.held_out.take(np.sort(draw.permutation(others)[:most])),
            vocabulary=self.cohort.vocabulary,
            share=RULES.false_positive_share,
            rng=draw,
        )

    def ranks(self, weights: Arrays) -> list[float]:
        """The percentile of each canary's loss among triples of the same make that nobody planted."""
        vocabulary = self.cohort.vocabulary
        model = build(weights, vocabulary=vocabulary, config=self.plan.generator)
        own, others = (
            losses(model, of_the_same_make(triples, self.cohort, self.planted), vocabulary=vocabulary)
            for triples in (self.planted.triples, self.planted.others)
        )
        return percentiles(own, others).round(5).tolist()

    def emitted(self, synthetic: Records) -> dict[str, int]:
        """Planted triples that came out beside those that nobody planted, which come out by chance."""
        vocabulary, planted = self.cohort.vocabulary, self.planted
        found = {
            f"{name}{'_verbatim' if verbatim else ''}": came_out(
                synthetic, triples, vocabulary=vocabulary, verbatim=verbatim
            )
            for name, triples in (("planted", planted.triples), ("others", planted.others))
            for verbatim in (False, True)
        }
        sizes = {"of_planted": len(planted.triples), "of_others": len(planted.others), "synthetic": len(synthetic)}
        return found | sizes


def told(verdict: Verdict) -> dict[str, object]:
    """The outcome, the gates that block, and the attack by distance to the nearest synthetic record (G3, G4, G5)."""
    numbers = {one.gate: one.numbers for one in verdict.results}
    auc, upper = numbers["G3"]["auc"], numbers["G3"]["upper"]
    half = TWO_SIDED * (upper - auc) / ONE_SIDED
    return {
        "verdict": verdict.outcome.value,
        "blocking": [one.gate for one in verdict.blocking],
        "synthetic": verdict.synthetic,
        "auc": auc,
        "low": auc - half,
        "high": auc + half,
        "upper": upper,
        "ratio": numbers["G4"]["ratio"],
        "difference": numbers["G5"]["difference"],
        "emitted": numbers["G9"]["emitted"],
        **numbers["G0"],
    }


def attack(found: Membership) -> dict[str, object]:
    """The AUC of an attack on a generator with its two-sided 95 % interval, and TPR over FPR at 1 % FPR."""
    half = TWO_SIDED * found.auc.error
    return {
        "auc": found.auc.value,
        "low": found.auc.value - half,
        "high": found.auc.value + half,
        "ratio": found.top.ratio,
        "members": found.auc.members,
        "others": found.auc.others,
    }
