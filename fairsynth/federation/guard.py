"""What of a fault at a site may leave it: a code. Its type and place stay in the site's own log.

In:  the work for a request.   Out: its reply, or `Failed`.   Never: text of an exception in a reply.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from fairsynth.errors import FairSynthError, faults
from fairsynth.federation.logbook import cut, tell_once
from fairsynth.federation.messages import Envelope, Failed
from fairsynth.federation.site_folder import LOG, read_site_folder
from fairsynth.schemas import SiteId

UNEXPECTED = "FS-900"  # a fault of the program or the machine: the log has its type and place

_ANONYMOUS = SiteId("unknown")


def guarded(folder: Callable[[], Path], work: Callable[[Path], Envelope], *, phase: str) -> Envelope:
    """The reply of `work` at the site's `folder`; when either fails, `Failed` with the error's code.

    The site's own log gets the code, the error's type and its place in the code; of FairSynth's own errors, which hold
    no patient's value, also the problems, so that the site can mend them.
    """
    root: Path | None = None
    try:
        root = folder()
        return work(root)
    except FairSynthError as error:
        return _failed(root, error, code=error.code, phase=phase)
    except faults() as error:  # the boundary: whatever it is, its text must not leave the site
        return _failed(root, error, code=UNEXPECTED, phase=phase)


def _failed(root: Path | None, error: BaseException, *, code: str, phase: str) -> Envelope:
    """The coded reply; the details stay in the site's log."""
    site = _ANONYMOUS
    if root is not None and root.is_dir():
        with contextlib.suppress(FairSynthError):
            site = read_site_folder(root).site
        told = error.problems if isinstance(error, FairSynthError) else ()
        tell_once(
            root / LOG,
            "failed",
            level=logging.ERROR,
            site=site,
            phase=phase,
            code=code,
            type=type(error).__name__,
            at=_place(error),
            problems=[{name: cut(text) for name, text in asdict(one).items()} for one in told],
        )
    return Failed(site=site, code=code).pack()


def _place(error: BaseException) -> str:
    """File and line of the innermost frame; no text, no value."""
    trace = error.__traceback__
    place = "unknown"
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno} {trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return place
