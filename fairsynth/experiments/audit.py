"""The audit of a finished run again, at one site or at each site on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from fairsynth.audit.site import audit_site
from fairsynth.audit.summarise import summarise
from fairsynth.audit.summary import Axes, Summary
from fairsynth.errors import ConfigError
from fairsynth.experiments.study import Run
from fairsynth.fairness.verdict import SiteChange
from fairsynth.federation.terms import load_terms
from fairsynth.generator import checkpoint
from fairsynth.schemas import Arrays, SiteId

ARMS = ("plain", "fairsynth")


def audit(run: Run, *, site: str | None = None) -> Summary:
    """Train and evaluate the four approaches at `site`, or at every site of the run on this machine."""
    plan = run.plan
    names = [site] if site else sorted(path.parent.name for path in run.root.glob("sites/*/site.json"))
    if not names:
        raise ConfigError.of("no site of this run on this machine", where=str(run.root))
    weights = {arm: checkpoint.load(run.server / f"generator-{arm}", kind=f"generator-{arm}").weights for arm in ARMS}
    terms = load_terms(run.server, plan=plan)
    replies: dict[SiteId, Arrays] = {}
    changes: dict[SiteId, Sequence[SiteChange]] = {}
    for site_id in map(SiteId, names):
        reply, replies[site_id] = audit_site(run.site(site_id), site=site_id, plan=plan, weights=weights, terms=terms)
        changes[site_id] = reply.changes
    return summarise(plan, replies, axes=Axes.model_validate(reply), changes=changes)
