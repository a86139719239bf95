"""A site's approval of a study: this plan, under this policy, with this cohort; signed by the site's key.

In:  who the site is and where its data are, a plan, an officer's name.   Out: `approvals/<hash of the plan>.json`.
Never: an approval that the site's key did not sign; a study that differs in one letter from the one approved.

What fixes the cohort: the content of site.yaml and of the rules and groups that it names, and names and sizes of the
files in the data folder. The first reply that leaves adds the hash of the events themselves (ledger, `cohort`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic import ValidationError as PydanticError

from fairsynth import artefacts
from fairsynth.config import Strict, StudyPlan, read_site
from fairsynth.errors import ConfigError, NotApproved, PolicyRefusal, Problem
from fairsynth.governance import ledger
from fairsynth.governance.identity import Identity, verify
from fairsynth.governance.ledger import Entry, Facts
from fairsynth.governance.policy import SitePolicy, read_policy
from fairsynth.schemas import SiteId

FOLDER = "approvals"
PURPOSE = b"fairsynth.approval/1\0"
LOCAL_RUN = "local run"  # the officer of a study whose sites are all on one machine, of one user

Officer = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,80}$")]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A site as its `site.json` says: its folder, its name, where its configuration and its tables are."""

    root: Path
    site: SiteId
    config: Path
    data: Path


class Grant(Strict):
    """What is signed."""

    schema_: Literal["fairsynth.approval/1"] = Field(default="fairsynth.approval/1", alias="schema")
    site: SiteId
    plan_sha256: str
    policy_sha256: str
    config_sha256: str
    data_sha256: str
    officer: Officer
    time: str
    plan: StudyPlan


class Approval(Strict):
    """`approvals/<hash of the plan>.json`."""

    grant: Grant
    signature: str  # Ed25519 over the grant in canonical JSON, hexadecimal


@dataclass(frozen=True, kw_only=True)
class Approved:
    """A study that may go on here: the plan, and since when."""

    plan: StudyPlan
    plan_sha256: str
    approval_sha256: str  # of the approval's file: the ledger has a line of it


def approve(place: Place, plan: StudyPlan, *, identity: Identity, officer: str, now: datetime.datetime) -> Path:
    """Sign the study, and enter that in the ledger. A renewed approval counts releases anew.

    Raises PolicyRefusal with everything that the policy has against the plan, ConfigError when the data are missing.
    """
    policy = read_policy(place.config)
    problems = list(policy.study_problems(plan))
    if place.site not in plan.roster:
        problems.append(Problem(what="a study without this site", where="plan  roster", expected=place.site))
    if problems:
        raise PolicyRefusal(problems)
    grant = _grant(place, plan, policy=policy, officer=officer, now=now)
    signature = identity.sign(_signed(grant)).hex()
    path = path_of(place.root, grant.plan_sha256)
    text = Approval(grant=grant, signature=signature).model_dump_json(by_alias=True, indent=2) + "\n"
    artefacts.write_text(path, text)
    facts = Facts(
        event="approved", study=grant.plan_sha256, officer=officer, sha256=artefacts.sha256_file(path), bytes=len(text)
    )
    with ledger.opened(place.root, identity=identity) as book:
        book.append(facts, now=now)
    return path


def check_approved(place: Place, study: str, *, policy: SitePolicy, identity: Identity) -> Approved:
    """The approval of the study whose plan has the hash `study`. Raises NotApproved with everything that differs."""
    path = path_of(place.root, study)
    approval = read_approval(path)
    grant = approval.grant
    rules = {
        "approval: signed by this site": verify(identity.public, _signed(grant), _bytes(approval.signature)),
        "approval: of this site": grant.site == place.site,
        "plan: the one approved": grant.plan_sha256 == study == plan_sha256(grant.plan),
        "policy: the one it was approved under": grant.policy_sha256 == policy.sha256,
        "cohort: the approved site.yaml, rules and groups": grant.config_sha256 == config_sha256(place.config),
        "cohort: the approved files in the data folder": grant.data_sha256 == listing_sha256(place.data),
    }
    problems = [_broken(rule, path) for rule, kept in rules.items() if not kept]
    problems += policy.study_problems(grant.plan)
    if problems:
        raise NotApproved(problems)
    return Approved(plan=grant.plan, plan_sha256=study, approval_sha256=artefacts.sha256_file(path))


def since_approved(entries: list[Entry], approved: Approved, *, where: Path) -> list[Entry]:
    """The ledger's lines of the study from its present approval on. Raises NotApproved when there is no such line."""
    own = [entry for entry in entries if entry.study == approved.plan_sha256]
    starts = [index for index, entry in enumerate(own) if entry.event == "approved"]
    if not starts or own[starts[-1]].sha256 != approved.approval_sha256:
        raise NotApproved(_broken("approval: the last that the ledger has of this study", where))
    return own[starts[-1] :]


def check_cohort(entries: list[Entry], cohort: str, *, where: Path) -> None:
    """Raise NotApproved when an earlier release of the approval was made of other events than `cohort`."""
    if any(entry.cohort not in ("", cohort) for entry in entries):
        raise NotApproved(_broken("cohort: the events of the first release", where))


def read_approval(path: Path) -> Approval:
    """The approval at `path`, not yet checked. Raises NotApproved when there is none, or it is damaged."""
    if not path.is_file():
        raise NotApproved.of(
            "study not approved at this site",
            where=str(path),
            expected="an approval of exactly this plan",
            do="fairsynth approve SITE_FOLDER --plan plan.json --officer NAME",
        )
    try:
        return Approval.model_validate_json(path.read_text(encoding="utf-8"))
    except (PydanticError, UnicodeDecodeError):
        raise NotApproved(_broken("approval: a whole file", path)) from None


def list_approvals(root: Path) -> Iterator[Approval]:
    """The approvals of a site; whether they still hold is for `check_approved` to say."""
    for path in sorted((root / FOLDER).glob("*.json")):
        yield read_approval(path)


def path_of(root: Path, study: str) -> Path:
    """Where the approval of a study is. Raises NotApproved when `study` is no hash, and so no name of a file."""
    if len(study) != 64 or not set(study) <= set("0123456789abcdef"):
        raise NotApproved.of("request that names no study", where="plan_sha256", expected="64 hexadecimal digits")
    return root / FOLDER / f"{study}.json"


def plan_sha256(plan: StudyPlan) -> str:
    """The hash that names the study, as in `federation.plans`."""
    return artefacts.sha256_json(plan.model_dump(mode="json", by_alias=True))


def config_sha256(config: Path) -> str:
    """Hash of what makes a cohort of tables: site.yaml, and the rules and groups that it names. Raises ConfigError."""
    site = read_site(config)
    paths = {"site": config / "site.yaml", "rules": config / site.rules, "groups": config / site.groups}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise ConfigError.of("missing file", where=missing[0], do="check `rules` and `groups` in site.yaml")
    return artefacts.sha256_json({name: artefacts.sha256_file(path) for name, path in paths.items()})


def listing_sha256(data: Path) -> str:
    """Hash of names and sizes of the files in the data folder; of none where there is no folder."""
    files: Mapping[str, int] = {
        path.relative_to(data).as_posix(): path.stat().st_size for path in data.rglob("*") if path.is_file()
    }
    return artefacts.sha256_json(files)


def _grant(place: Place, plan: StudyPlan, *, policy: SitePolicy, officer: str, now: datetime.datetime) -> Grant:
    if not place.data.is_dir():
        raise ConfigError.of("missing folder of tables", where=str(place.data), do="correct `data` in site.json")
    try:
        return Grant(
            site=place.site,
            plan_sha256=plan_sha256(plan),
            policy_sha256=policy.sha256,
            config_sha256=config_sha256(place.config),
            data_sha256=listing_sha256(place.data),
            officer=officer,
            time=now.isoformat(),
            plan=plan,
        )
    except PydanticError:
        raise ConfigError.of(
            "bad name of an officer", where="--officer", expected="1 to 80 letters, one line"
        ) from None


def _signed(grant: Grant) -> bytes:
    return PURPOSE + artefacts.sha256_json(grant.model_dump(mode="json", by_alias=True)).encode()


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _broken(rule: str, path: Path) -> Problem:
    subject, _, expected = rule.partition(": ")
    return Problem(
        what=f"{subject} is another than the approved one",
        where=str(path),
        expected=expected,
        do="fairsynth approve, if the change is wanted",
    )
