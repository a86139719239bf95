"""Before step 2: what a site's data are worth for a study, told before anything runs (docs/quality.md)."""

from __future__ import annotations

from fairsynth.quality.report import QualityReport, check_site

__all__ = ["QualityReport", "check_site"]
