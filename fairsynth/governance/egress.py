"""The one way out of a site: a message is checked, entered in the ledger, and only then may leave.

In:  an outgoing message, the site's policy, ledger and approval.   Out: the ledger's line, once it is on disk.
Never: a message that is not on the allow-list; a value of one in a refusal; a repair.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairsynth.errors import EgressRefused, Problem
from fairsynth.governance.approval import Approved, check_cohort, path_of, since_approved
from fairsynth.governance.array_rules import rule_of, wrong_array
from fairsynth.governance.field_rules import Expected, named, wrong_fields
from fairsynth.governance.ledger import Entry, Facts, Ledger
from fairsynth.governance.policy import MessageRule, SitePolicy, sizes_of
from fairsynth.schemas import Arrays

FAILED = "failed"  # the one kind of message that needs no approval: it refuses
_EPSILON_SLACK = 1e-9
_SHOWN_PROBLEMS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Outgoing:
    """A message that is to leave the site."""

    kind: str
    text: str  # its JSON fields, exactly as they would leave
    arrays: Arrays
    site: str
    study: str  # SHA-256 of the plan that the request named; may be empty of a refusal
    label: str  # the same for the same request
    cohort: str = ""  # hash of the site's events
    masked: frozenset[str] = frozenset()  # names of the arrays that are masked
    epsilon: float | None = None  # privacy loss that it adds

    @property
    def bytes(self) -> int:
        """Of fields and arrays."""
        return len(self.text.encode()) + sum(array.nbytes for array in self.arrays.values())

    @property
    def sha256(self) -> str:
        """Hash of kind, fields, and every array with its name, type and shape."""
        digest = hashlib.sha256()
        for part in (self.kind, self.text):
            _feed(digest, part.encode())
        for name in sorted(self.arrays):
            array = self.arrays[name]
            _feed(digest, f"{name} {array.dtype.str} {array.shape}".encode())
            _feed(digest, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return digest.hexdigest()


def release(
    outgoing: Outgoing, *, policy: SitePolicy, ledger: Ledger, approval: Approved | None, now: datetime.datetime
) -> Entry:
    """Let `outgoing` leave: the line that the ledger now has of it.

    `approval` is that of the study; a message of the kind `failed` needs none. Raises EgressRefused with all problems,
    NotApproved when the approval is not of this study or of other events, LedgerDamaged. Then nothing may be sent.
    """
    entries = ledger.entries(now=now)
    rule = policy.messages.get(outgoing.kind)
    if rule is None:
        raise EgressRefused.of(
            "message of a kind that may not leave", where=named(outgoing.kind), expected=_kinds(policy)
        )
    if approval is None and outgoing.kind != FAILED:
        raise EgressRefused.of("message of no approved study", where=outgoing.kind, expected="an approval")
    since = [entry for entry in entries if entry.kind == FAILED]
    if approval is not None:
        since = since_approved(entries, approval, where=path_of(ledger.root, approval.plan_sha256))
        check_cohort(since, outgoing.cohort, where=path_of(ledger.root, approval.plan_sha256))
    _refuse_if([*_wrong_content(outgoing, rule, policy=policy, approval=approval)])
    digest = outgoing.sha256
    earlier = next((entry for entry in since if _is_same(entry, outgoing, digest)), None)
    if earlier is None or approval is None:
        _refuse_if([*_too_much(outgoing, rule, policy=policy, since=since, entries=entries)])
    return ledger.append(_facts(outgoing, rule, digest=digest, earlier=earlier), now=now)


def _refuse_if(problems: list[Problem]) -> None:
    if problems:
        raise EgressRefused(problems[:_SHOWN_PROBLEMS])


def _wrong_content(
    outgoing: Outgoing, rule: MessageRule, *, policy: SitePolicy, approval: Approved | None
) -> Iterator[Problem]:
    """What is wrong with the message itself."""
    expected = Expected(
        site=outgoing.site, study=outgoing.study, cohort=outgoing.cohort, minimum_cell=policy.minimum_cell
    )
    if approval is not None and approval.plan_sha256 != outgoing.study:
        yield _problem(outgoing.kind, "a message of the approved study")
    if outgoing.bytes > rule.most_bytes:
        yield _problem(outgoing.kind, f"at most {rule.most_bytes} bytes")
    fields = _parsed(outgoing.text)
    if fields is None:
        yield _problem(f"{outgoing.kind}.fields", "one JSON object, no key twice, no NaN")
    else:
        for where, wish in wrong_fields(rule.fields, fields, where=outgoing.kind, expected=expected):
            yield _problem(where, wish)
        if policy.unmasked_records == "refused":
            closed = sorted(name for name in fields if name in rule.fields and not rule.fields[name].public)
            for name in closed:
                yield _problem(f"{outgoing.kind}.{name}", "a public field: unmasked records are not allowed here")
    yield from _wrong_arrays(outgoing, rule, policy=policy, sizes=sizes_of(approval.plan) if approval else {})


def _wrong_arrays(
    outgoing: Outgoing, rule: MessageRule, *, policy: SitePolicy, sizes: dict[str, int]
) -> Iterator[Problem]:
    seen: Counter[str] = Counter()
    for name in sorted(outgoing.arrays):
        found, where = rule_of(rule.arrays, name), f"{outgoing.kind}:{named(name)}"
        if found is None:
            yield _problem(where, "no array beyond those of the policy")
            continue
        seen[found.name] += 1
        wishes = wrong_array(
            found,
            outgoing.arrays[name],
            is_masked=name in outgoing.masked,
            unmasked_allowed=policy.unmasked_records == "allowed",
            sizes=sizes,
        )
        for wish in wishes:
            yield _problem(where, wish)
    for one in rule.arrays:
        if not seen[one.name] and not one.optional:
            yield _problem(f"{outgoing.kind}:{one.name}", "an array that is there")
        if seen[one.name] > one.at_most:
            yield _problem(f"{outgoing.kind}:{one.name}", f"at most {one.at_most} such arrays")
    for name in sorted(outgoing.masked - set(outgoing.arrays)):
        yield _problem(f"{outgoing.kind}:{named(name)}", "an array that is there")


def _too_much(
    outgoing: Outgoing, rule: MessageRule, *, policy: SitePolicy, since: Sequence[Entry], entries: Sequence[Entry]
) -> Iterator[Problem]:
    """What is too often, too large in all, or spends too much."""
    new = [entry for entry in since if entry.event == "released" or entry.kind == FAILED]  # refusals: however often
    same_kind = [entry for entry in new if entry.kind == outgoing.kind]
    if len(same_kind) >= rule.at_most:
        yield _problem(outgoing.kind, f"at most {rule.at_most} new messages since the study was approved")
    if outgoing.masked and any(entry.label == outgoing.label and entry.masked for entry in same_kind):
        yield _problem(outgoing.kind, "the same bytes under the same label: two masked answers to one request differ")
    if sum(entry.bytes for entry in new) + outgoing.bytes > policy.most_bytes_per_study:
        yield _problem(outgoing.kind, f"at most {policy.most_bytes_per_study} bytes in one study")
    if outgoing.epsilon is not None and policy.epsilon_budget is not None:
        spent = sum(entry.epsilon or 0.0 for entry in entries)
        if not outgoing.epsilon >= 0 or spent + outgoing.epsilon > policy.epsilon_budget + _EPSILON_SLACK:
            yield _problem(f"{outgoing.kind}, epsilon", f"at most {policy.epsilon_budget:g} over all studies")


def _facts(outgoing: Outgoing, rule: MessageRule, *, digest: str, earlier: Entry | None) -> Facts:
    values: Counter[str] = Counter()
    masked = set()
    for name, array in outgoing.arrays.items():
        found = rule_of(rule.arrays, name)
        key = found.name if found else name
        values[key] += array.size
        masked |= {key} if name in outgoing.masked else set()
    return Facts(
        event="released" if earlier is None else "resent",
        study=outgoing.study,
        kind=outgoing.kind,
        label=outgoing.label,
        bytes=outgoing.bytes,
        sha256=digest,
        arrays=dict(sorted(values.items())),
        masked=tuple(sorted(masked)),
        epsilon=outgoing.epsilon if earlier is None else None,
        cohort=outgoing.cohort,
        resend_of=None if earlier is None else earlier.number,
    )


def _is_same(entry: Entry, outgoing: Outgoing, digest: str) -> bool:
    """Whether the line is of the same bytes, sent before to the same request."""
    return (entry.event, entry.kind, entry.label, entry.sha256) == ("released", outgoing.kind, outgoing.label, digest)


def _parsed(text: str) -> Mapping[str, Any] | None:
    """The JSON object; None where it is none, has a key twice, or a number that JSON does not have."""
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice")
    return value


def _refuse(_: str) -> None:
    raise ValueError("not JSON")


def _problem(where: str, expected: str) -> Problem:
    return Problem(
        what="not on the site's allow-list",
        where=where,
        expected=expected,
        do="nothing left; see policy.yaml of the site, and docs/egress.md",
    )


def _kinds(policy: SitePolicy) -> str:
    return f"one of: {', '.join(sorted(policy.messages))}"


def _feed(digest: Any, part: bytes | npt.NDArray[np.uint8]) -> None:
    """Length, then content: no two messages feed the same bytes."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
