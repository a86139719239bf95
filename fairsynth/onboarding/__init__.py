"""Before step 1: a first site configuration, guessed from the headers and the first rows of a hospital's tables."""

from __future__ import annotations

from fairsynth.onboarding.site import Outcome, init_site

__all__ = ["Outcome", "init_site"]
