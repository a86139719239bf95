"""`site.yaml`: one source of data.

In:  YAML.   Out: `SiteConfig`.   Never: anything that sites agree on.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from fairsynth.config.base import Name, Strict


class CohortConfig(Strict):
    """Which of a site's patients and visits enter."""

    minimum_age_years: NonNegativeFloat = 0.0
    maximum_age_years: PositiveFloat = 120.0
    minimum_visits: PositiveInt = 1
    require_unit: tuple[str, ...] = ()  # keep visits with a stay in one of these care units; empty: any visit
    exclude_codes: tuple[str, ...] = ()  # event-code prefixes left out, e.g. codes that give the outcome away


class FirstVisit(Strict):
    """Which patients of a source are this site's, where several sites are made of one source: those whose first visit
    has one of `cells` ("" for an empty one) in `column` of the visits table."""

    column: str
    cells: tuple[str, ...] = Field(min_length=1)


class SiteConfig(Strict):
    """`site.yaml`: one source of data."""

    schema_: Literal["fairsynth.site/1"] = Field(alias="schema")
    source: Name
    description: str = ""
    layout: Literal["tables", "meds"] = "tables"  # the source's own tables, or a MEDS data set
    rules: str = "rules.yaml"
    groups: str = "groups.yaml"
    policy: str = "policy.yaml"  # what may leave the site: docs/egress.md
    cohort: CohortConfig = CohortConfig()
    first_visit: FirstVisit | None = None  # None: every patient of the source
    maximum_dropped_share: Annotated[float, Field(ge=0, le=1)] = 0.0  # of rows whose patient or visit is unknown
    maximum_unreadable_share: Annotated[float, Field(ge=0, le=1)] = 0.0  # of rows with a cell that does not parse
