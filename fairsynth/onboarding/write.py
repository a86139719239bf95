"""A guessed configuration -> commented YAML.

In:  `SiteDraft`.   Out: the texts of site.yaml, rules.yaml, groups.yaml.
Never: a file is written; a cell that the draft does not hold.

A line with `TODO` asks for a decision: `fairsynth check` lists the ones that are left. What is not sure is written as a
comment.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from fairsynth.onboarding.drafts import DictionaryDraft, Event, GroupString, Parent, Question, SiteDraft, TableDraft

WIDTH = 118
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./ ()+-]*[A-Za-z0-9_/)]|[A-Za-z_]")
_WORDS_OF_YAML = {"y", "n", "yes", "no", "true", "false", "on", "off", "null", "none"}


def site_yaml(draft: SiteDraft) -> str:
    """The text of `site.yaml`."""
    lines = [
        f"# {draft.name}: one source of data, guessed from its tables. Read every line; docs/new-hospital.md.",
        "schema: fairsynth.site/1",
        f"source: {draft.name}",
        'description: ""               # TODO: which hospital, which years, which patients',
        "rules: rules.yaml",
        "groups: groups.yaml",
        "policy: policy.yaml           # what may leave this site: docs/egress.md",
        "cohort:",
        "  minimum_age_years: 0         # patients of any age; 18: adults alone",
        "  maximum_age_years: 120",
        "  minimum_visits: 1",
    ]
    if draft.exclude_codes:
        lines += [
            "  # Coded after the fact, these give a death away: cardiac arrest, palliative care, brain death, do not",
            "  # resuscitate, sudden or unattended death. `fairsynth check` names further candidates.",
            "  exclude_codes:",
            *(f"    - {scalar(code)}" for code in draft.exclude_codes),
        ]
    lines.append(
        "maximum_dropped_share: 0.0     # of the rows that name a patient or visit, how many may name an unknown one"
    )
    if draft.unreadable:
        lines.append(
            "# TODO: some results are no numbers; the share of such rows that may be left out, or another column"
        )
    lines.append("maximum_unreadable_share: 0.0  # of the rows, how many may have a cell that does not parse")
    return "\n".join(lines) + "\n"


def groups_yaml(draft: SiteDraft) -> str:
    """The text of `groups.yaml`."""
    lines = [
        "# The source's own strings -> the study's groups. First match wins; the expression is searched in the",
        "# upper-cased string. A string that no rule matches is an error: it has to be placed by a person.",
        "schema: fairsynth.groups/1",
        f"attribute: {draft.attribute}",
    ]
    if not draft.strings:
        lines += ["# TODO: one rule for each string, e.g. {match: '^WHITE$', group: white}", "rules: []"]
    else:
        lines += [
            "# TODO: name the groups as the study does, and join what belongs together",
            "rules:",
            *(f"  - {{match: {_quoted(_pattern(one.raw))}, group: {scalar(one.group)}}}" for one in _once(draft)),
        ]
    if draft.rare_strings:
        more = "1 more string" if draft.rare_strings == 1 else f"each of {draft.rare_strings} more strings"
        lines += [
            f"  # TODO: a rule for {more} that fewer than 11 patients carry (not written here)",
            "  # or one rule that takes the rest:",
            "  # - {match: '.', group: other}",
        ]
    return "\n".join(lines) + "\n"


def rules_yaml(draft: SiteDraft) -> str:
    """The text of `rules.yaml`."""
    lines = [
        f"# {draft.name}: how rows become events, guessed from headers and first rows. All keys: docs/extraction.md.",
        "# Columns match in any case.",
        "schema: fairsynth.rules/1",
        f"date_formats: {flow(list(draft.date_formats))}   # the first is also used for writing",
    ]
    lines += [f"text: {flow(draft.text)}"] if draft.text else []
    lines += [f"identifiers: {flow(draft.identifiers)}"] if draft.identifiers else []
    lines += [f"patients: {scalar(draft.patients)}", f"visits: {flow(draft.visits)}"]
    lines += _asked(draft.questions, indent="")
    lines += ["", "tables:" if draft.tables else "tables: []"]
    for table in draft.tables:
        lines += [*_table(table), ""]
    if draft.dictionaries:
        lines.append("dictionaries:")
        for dictionary in draft.dictionaries:
            lines += [*_dictionary(dictionary), ""]
    lines += _parents(draft.parents)
    if draft.unused:
        lines += ["", "# Not read:", *(f"#   {_comment(one)}" for one in draft.unused)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def scalar(value: object) -> str:
    """A value as YAML, quoted where it would otherwise be read as something else."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    return (
        text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_OF_YAML else json.dumps(text, ensure_ascii=False)
    )


def flow(value: object) -> str:
    """Mappings and lists on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(inner) for inner in value) + "]"
    return scalar(value)


def _table(table: TableDraft) -> Iterator[str]:
    """One entry under `tables:`."""
    yield f"  - file: {scalar(table.sample.name)}   # {table.what}"
    yield from _columns(table.sample.columns)
    for key, value in table.keys.items():
        yield f"    {key}: {flow(value)}" + (
            "   # rows that name no visit get the one their time falls in" if key == "attach_by_time" else ""
        )
    yield from _asked(table.questions, indent="    ")
    yield "    events:"
    for event in table.events:
        yield from _event(event)


def _event(event: Event) -> Iterator[str]:
    rule = f"- {flow(event.rule)}"
    said = f"   # {_comment(event.said)}" if event.said else ""
    yield f"      # TODO: {rule}{said}" if event.open else f"      {rule}{said}"


def _dictionary(dictionary: DictionaryDraft) -> Iterator[str]:
    yield f"  - file: {scalar(dictionary.sample.name)}"
    yield from _columns(dictionary.sample.columns)
    yield from (f"    {key}: {flow(value)}" for key, value in dictionary.keys.items())


def _columns(names: Iterable[str]) -> Iterator[str]:
    """All columns of a file, wrapped."""
    text = f"columns: {flow(list(names))}"
    first, *others = textwrap.wrap(
        text, WIDTH - 4, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
    )
    yield from (f"    {line}" for line in (first, *others))


def _parents(parents: Iterable[Parent]) -> Iterator[str]:
    """The inline table of names in LOINC."""
    listed = list(parents)
    if not listed:
        return
    yield "# Local laboratory items -> LOINC. TODO: check each; the same name can stand for another specimen."
    yield "parents:" if any(not parent.open for parent in listed) else "parents: {}"
    for parent in listed:
        entry = f"{scalar(parent.code)}: {scalar(parent.loinc)}   # {_comment(parent.said)}"
        yield f"  # TODO: {entry}" if parent.open else f"  {entry}"


def _asked(questions: Iterable[Question], *, indent: str) -> Iterator[str]:
    for question in questions:
        lines = textwrap.wrap(_comment(question.text), WIDTH - len(indent) - 8)
        yield f"{indent}# TODO: {lines[0]}"
        yield from (f"{indent}#   {line}" for line in lines[1:])


def _once(draft: SiteDraft) -> Iterator[GroupString]:
    """Strings that are the same in upper case give one rule."""
    seen: set[str] = set()
    for one in draft.strings:
        if one.raw.upper() not in seen:
            seen.add(one.raw.upper())
            yield one


def _pattern(raw: str) -> str:
    return f"^{re.escape(raw.upper())}$".replace("\\ ", " ").replace("\\-", "-").replace("\\/", "/")


def _quoted(text: str) -> str:
    """A regular expression in single quotes, in which YAML leaves back slashes alone."""
    return "'" + text.replace("'", "''") + "'"


def _comment(text: str) -> str:
    """Text that stays on its line."""
    return re.sub(r"\s+", " ", text)


__all__ = ["flow", "groups_yaml", "rules_yaml", "scalar", "site_yaml"]
