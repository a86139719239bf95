"""Step 1: a site's raw tables -> `events/` in MEDS Parquet, by declared rules."""

from __future__ import annotations

from fairsynth.extraction.checks import TablesReport, check_tables
from fairsynth.extraction.engine import extract, extract_anew
from fairsynth.extraction.rules import Rules, read_rules

__all__ = ["Rules", "TablesReport", "check_tables", "extract", "extract_anew", "read_rules"]
