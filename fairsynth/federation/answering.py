"""How a site answers: plainly where the study is plain, else with a masked vector, under noise of noised numbers.

In:  the site's folder, a request, the work for its kind.   Out: the reply that may leave.
Never: a plain reply in a masked study.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from fairsynth.config import StudyPlan
from fairsynth.errors import ProtocolError
from fairsynth.federation.masking.form import Known
from fairsynth.federation.masking.sealing import joined, sealed
from fairsynth.federation.masking.session import alone
from fairsynth.federation.messages import AgreeRequest, EnrolRequest, Envelope, JoinRequest
from fairsynth.federation.site import shared_by
from fairsynth.federation.site_folder import read_plan, read_site_folder

Work = Callable[[Path, Envelope], Envelope]


def join(root: Path, request: Envelope) -> Envelope:
    """A key for this run. Raises ProtocolError when the study is plain, or without a roster that all sites signed."""
    plan, here = JoinRequest.unpack(request).plan, read_site_folder(root)
    if not plan.privacy.masked:
        raise ProtocolError.of("keys for a study that masks nothing", where="join", expected="enrol")
    if here.site not in plan.roster:
        raise ProtocolError.of("this site is not in the plan's roster", where=here.site)
    return joined(root, request, site=here.site)


def answered(root: Path, request: Envelope, work: Work) -> Envelope:
    """The reply to `request`, of the one that `work` makes. Raises what `work` and `masking` raise."""
    if request.kind == JoinRequest.kind:
        with alone(root):
            return work(root, request)
    plan = _plan(root, request)
    with threadpool_limits(limits=plan.training.threads):  # sums depend on it in their last bits
        return _answered(root, request, work, plan=plan)


def _answered(root: Path, request: Envelope, work: Work, *, plan: StudyPlan) -> Envelope:
    if not plan.privacy.masked:
        return work(root, request)
    early = request.kind in (EnrolRequest.kind, AgreeRequest.kind)
    shared = None if early else shared_by(root)
    given = _noised(work) if plan.privacy.noised else work
    known = Known(patients=shared.patients, codes=shared.codes) if shared else None
    with alone(root):
        return sealed(root, request, given, site=read_site_folder(root).site, plan=plan, known=known)


def _noised(work: Work) -> Work:
    from fairsynth.federation.noised.site import noised  # 0.8 s of imports; each message is a new process

    return partial(noised, work=work)


def _plan(root: Path, request: Envelope) -> StudyPlan:
    return EnrolRequest.unpack(request).plan if request.kind == EnrolRequest.kind else read_plan(root)
