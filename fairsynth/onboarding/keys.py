"""Which table holds the patients, which the visits, and which columns of the other tables lead to them.

In:  samples.   Out: `Keys`.
Never: a guess without evidence: a name that says it, or cells that occur in the other table too.

A key is a column with a cell of its own in every row. Patients: the table whose key is named like a patient and that
has sex, birth or age. Visits: the table whose key is named like a visit or referred to by the most other tables, with a
patient and two times (in a source without dates, none). Without a table of patients, the visits table stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from re import Pattern

from fairsynth.onboarding import words
from fairsynth.onboarding.columns import Column, columns_of
from fairsynth.onboarding.samples import Sample

REFERS = 0.5  # of a column's different cells that must occur in a key, where no name says that it refers to it
ENOUGH_CELLS = 5  # different ones, for an overlap to mean something


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The skeleton of a source. None, or no entry in a mapping: not found."""

    tables: Mapping[str, Mapping[str, Column]]  # table -> its columns
    patients: str | None  # table; the visits table where there is no other
    visits: str | None
    start: str | None  # columns of the visits table
    end: str | None
    subject: Mapping[str, str]  # table -> column that names the patient
    visit: Mapping[str, str]  # table -> column that names the visit

    def key_columns(self, table: str) -> set[str]:
        """The columns of a table that name patient and visit."""
        return {mapping[table] for mapping in (self.subject, self.visit) if table in mapping}


def find_keys(samples: Iterable[Sample]) -> Keys:
    """The skeleton of the source that `samples` are the heads of."""
    tables = {sample.name: columns_of(sample) for sample in samples}
    visits, visit_key = _visits(tables)
    patients, subject_key = _patients(tables, besides=visits)
    if visits is not None and patients is None:
        patients = visits
        subject_key = _named(tables[visits], words.SUBJECT, besides=visit_key)
    subject = _referring(tables, home=patients, key=subject_key, pattern=words.SUBJECT, besides={})
    visit = _referring(tables, home=visits, key=visit_key, pattern=words.VISIT, besides=subject)
    start, end = _ends(tables[visits]) if visits is not None else (None, None)
    return Keys(tables=tables, patients=patients, visits=visits, start=start, end=end, subject=subject, visit=visit)


def named(columns: Mapping[str, Column], pattern: Pattern[str]) -> list[Column]:
    """The columns whose plain name has the pattern."""
    return [column for column in columns.values() if pattern.search(column.plain)]


def _visits(tables: Mapping[str, Mapping[str, Column]]) -> tuple[str | None, Column | None]:
    """The visits table and its key."""
    best: tuple[float, str, Column] | None = None
    for table, columns in tables.items():
        times = [column for column in columns.values() if column.is_time]
        starts = [column for column in times if words.START.search(column.plain)]
        ends = [column for column in times if words.END.search(column.plain)]
        people = named(columns, words.SUBJECT)
        for key in _keys_of(columns):
            is_named = bool(words.VISIT.search(key.plain))
            about_people = words.SUBJECT.search(key.plain) or named(columns, words.BIRTH)
            if (len(times) < 2 and not (is_named and people)) or (about_people and not is_named):
                continue
            score = 3.0 * is_named + 2 * bool(starts) + 2 * bool(ends) + bool(people)
            score += 2 * _references(tables, table, key)
            if score >= 4 and (best is None or score > best[0]):
                best = (score, table, key)
    return (best[1], best[2]) if best else (None, None)


def _patients(tables: Mapping[str, Mapping[str, Column]], *, besides: str | None) -> tuple[str | None, Column | None]:
    """The table with one row a patient and its key, if there is one beside the visits table."""
    best: tuple[float, str, Column] | None = None
    for table, columns in tables.items():
        facts = sum(bool(named(columns, pattern)) for pattern in (words.SEX, words.BIRTH, words.AGE))
        for key in _keys_of(columns):
            is_named = bool(words.SUBJECT.search(key.plain))
            score = 2.0 * is_named + 2 * facts + _references(tables, table, key)
            if table != besides and facts and score >= 3 and (best is None or score > best[0]):
                best = (score, table, key)
    return (best[1], best[2]) if best else (None, None)


def _keys_of(columns: Mapping[str, Column]) -> list[Column]:
    return [column for column in columns.values() if column.unique and column.is_identifier]


def _references(tables: Mapping[str, Mapping[str, Column]], home: str, key: Column) -> int:
    """How many other tables have a column of the key's name, not all different, or cells of the key."""
    found = 0
    for table, columns in tables.items():
        if table != home:
            same = columns.get(key.name)
            found += (same is not None and same.is_identifier) or any(
                _refers(column, key) for column in columns.values()
            )
    return found


def _refers(column: Column, key: Column) -> bool:
    """Whether a column's cells are those of a key. Small running numbers occur everywhere and prove nothing."""
    if not column.is_identifier or key.counts_rows or len(column.distinct) < ENOUGH_CELLS:
        return False
    return column.overlap(key) >= REFERS


def _referring(
    tables: Mapping[str, Mapping[str, Column]],
    *,
    home: str | None,
    key: Column | None,
    pattern: Pattern[str],
    besides: Mapping[str, str],
) -> dict[str, str]:
    """The column of each table that refers to the key of `home`: of its name, named alike, or with its cells."""
    if home is None or key is None:
        return {}
    found = {home: key.name}
    for table, columns in tables.items():
        free = {name: column for name, column in columns.items() if besides.get(table) != name}
        if table == home or key.name in free:
            found.setdefault(table, key.name)
            continue
        alike = _named(free, pattern)
        linked = [column for column in free.values() if _refers(column, key)]
        if alike is not None and (alike in linked or not linked):
            found[table] = alike.name
        elif linked:
            found[table] = linked[0].name
    return found


def _named(columns: Mapping[str, Column], pattern: Pattern[str], *, besides: Column | None = None) -> Column | None:
    """The first identifier among the columns that is named like that."""
    alike = (column for column in named(columns, pattern) if column.is_identifier and column != besides)
    return next(alike, None)


def _ends(columns: Mapping[str, Column]) -> tuple[str | None, str | None]:
    """The columns with a visit's start and end."""
    times = [column for column in columns.values() if column.is_time and not words.DEATH.search(column.plain)]
    full = sorted(times, key=lambda column: column.filled < 1)  # a visit's own times are always there
    start = next((column.name for column in full if words.START.search(column.plain)), None)
    end = next((column.name for column in full if words.END.search(column.plain) and column.name != start), None)
    others = [
        column.name for column in full if column.name not in (start, end) and not words.BIRTH.search(column.plain)
    ]
    if start is None and len(others) == 1:
        start = others[0]
    elif end is None and len(others) == 1:
        end = others[0]
    return start, end
