"""Log hygiene over the whole test suite: no test's output, log or log file has a word that stands for a patient.

`canary_words.py` has the words. A test that reads its output itself (`capsys`) says itself what may be in it.
"""

from __future__ import annotations

import os

# Before torch and numpy are imported: toy models are too small to share, and threads that wait for each other spin.
# Half of the suite's time, and more where other programs run.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from canary_words import heard, heard_in, logs

from fairsynth.federation.engine.processes import Workshop


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test fails when a canary was printed or logged while it ran."""
    report = yield
    words = heard("".join(text for title, text in report.sections if title.startswith("Captured")))
    if words and report.passed:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}, {report.when}: printed or logged {', '.join(words)}"
    return report


@pytest.fixture(scope="session", autouse=True)
def no_log_file_has_a_canary(tmp_path_factory):
    """At the end: every log under the tests' folders, and before it is removed, of every Flower process."""
    found: list[str] = []
    leave = Workshop.__exit__

    def look_and_leave(workshop: Workshop, *told: object) -> None:
        found.extend(heard_in(logs(workshop.home)))
        leave(workshop, *told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workshop, "__exit__", look_and_leave)
        yield
    found += heard_in(logs(tmp_path_factory.getbasetemp()))
    if found:
        pytest.fail("log files have a patient's value:\n" + "\n".join(found))
