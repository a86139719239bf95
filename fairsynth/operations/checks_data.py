"""The site's tables, and what its officers decided: policy, approvals, ledger, budget.

In:  the site's place.   Out: findings.
Never: a patient's value or identifier; an approval that is made, a line that is written, a budget that is charged.
"""

from __future__ import annotations

from pathlib import Path

from fairsynth.errors import FairSynthError
from fairsynth.federation.boundary import SLACK, has_budget
from fairsynth.federation.noised.household import limit_of
from fairsynth.governance import approval, ledger
from fairsynth.governance.approval import Place
from fairsynth.governance.budget import Budget
from fairsynth.governance.identity import load_identity
from fairsynth.governance.policy import SitePolicy, read_policy
from fairsynth.operations.findings import Finding, failed, ok, refused, skipped, warning

UNSOUND = (
    "approval is",
    "plan is",
    "study not approved",
    "request that names no study",
)  # what no change of policy or data explains
TABLES, POLICY, APPROVALS, LEDGER, BUDGET = "tables", "policy", "approvals", "ledger", "privacy budget"


def tables_finding(place: Place) -> Finding:
    """Whether the raw tables fit the site's rules."""
    if not place.data.is_dir():
        return failed(TABLES, f"no folder {place.data}", do="correct `data` in site.json, or mount the folder")
    try:
        from fairsynth.extraction.checks import check_tables  # polars and pyarrow: only where tables are read

        found = check_tables(place.data, config=place.config)
    except FairSynthError as error:
        told = refused(TABLES, error)
        return failed(
            TABLES, told.said, do=f"{told.do}; all of them: fairsynth check {place.config} --data {place.data}"
        )
    rows = sum(table.rows for table in found.tables)
    return ok(TABLES, f"{len(found.tables)} read, {rows:,} rows, nothing wrong")


def policy_finding(place: Place) -> tuple[Finding, SitePolicy | None]:
    """Whether the site has said what may leave it."""
    try:
        policy = read_policy(place.config)
    except FairSynthError as error:
        return refused(POLICY, error), None
    return ok(POLICY, f"studies of {policy.minimum_sites} sites or more; hash {policy.sha256[:12]}"), policy


def approvals_finding(place: Place, policy: SitePolicy) -> Finding:
    """Whether what was approved still holds: the same policy, the same configuration, the same files of data."""
    paths = sorted((place.root / approval.FOLDER).glob("*.json"))
    if not paths:
        do = "fairsynth approve, when a plan comes: until then this site answers no request"
        return ok(APPROVALS, "no study is approved yet", do=do)
    try:
        identity = load_identity(place.root)
    except FairSynthError as error:
        return skipped(APPROVALS, f"the site's key cannot be used: {error.problems[0].what}")
    entries = ledger.read(place.root)
    holding: list[str] = []
    changed: list[str] = []
    unsound: list[str] = []
    for path in paths:
        try:
            approved = approval.check_approved(place, path.stem, policy=policy, identity=identity)
            approval.since_approved(entries, approved, where=path)
            holding.append(approved.plan.name)
        except FairSynthError as error:
            told = f"{path.stem[:12]}: {error.problems[0].what} (expected {error.problems[0].expected})"
            is_unsound = any(problem.what.startswith(UNSOUND) for problem in error.problems)
            (unsound if is_unsound else changed).append(told)
    said = f"{len(holding)} of {len(paths)} hold" + (f": {', '.join(holding)}" if holding else "")
    if unsound:
        do = "find out who changed it; put back a copy, or approve anew"
        return failed(APPROVALS, f"{said}; {'; '.join((*unsound, *changed))}", do=do)
    if changed:
        do = "of a finished study: nothing; else fairsynth approve, if the change is wanted"
        return warning(APPROVALS, f"{said}; {'; '.join(changed)}", do=do)
    return ok(APPROVALS, said)


def ledger_finding(root: Path) -> Finding:
    """Whether the list of what left is as it was written."""
    if not (root / ledger.NAME).is_file() and not (root / ledger.HEAD).is_file():
        return ok(LEDGER, "empty: nothing has left this site")
    try:
        fault = ledger.find_fault(root)
    except FairSynthError as error:
        return refused(LEDGER, error)
    if fault is not None:
        said = f"altered: {root / ledger.NAME}:{fault.line}  {fault.what}"
        return failed(LEDGER, said, do="nothing leaves until it is mended: find out who changed it, put back a copy")
    number = len(ledger.read(root))
    if ledger.has_torn_line(root):
        said = f"sound: {number} lines; a crash left part of a line, which was never sent"
        return ok(LEDGER, said, do="nothing: the next release moves it aside")
    return ok(LEDGER, f"sound: {number} lines")


def budget_finding(root: Path, policy: SitePolicy) -> Finding:
    """What of the site's privacy budget is left, over all studies."""
    limit = policy.epsilon_budget
    if limit is None:
        return ok(BUDGET, "none kept: studies with noise are refused, others have no epsilon")
    told = sum(entry.epsilon or 0.0 for entry in ledger.read(root))
    try:
        spent = Budget(root, limit=limit_of(policy)).told() if has_budget(root) else 0.0
    except FairSynthError as error:
        return refused(BUDGET, error)
    if spent < told - SLACK:
        said = f"it knows of epsilon {spent:.3g}, the ledger of {told:.3g}"
        return failed(BUDGET, said, do="fairsynth restore (docs/operations.md): nothing with noise leaves until then")
    left = limit - spent
    said = f"epsilon {spent:.3g} of {limit:g} spent, {max(left, 0.0):.3g} left (delta {policy.delta:g})"
    if left <= 0:
        return warning(BUDGET, said, do="no study with noise can run: the data officer decides whether to raise it")
    return ok(BUDGET, said)
