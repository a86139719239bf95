"""A configuration folder, and a site of twenty patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from visits_stories import GROUPS, Story, write_events


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Write a configuration folder; the argument is the `cohort` section of site.yaml."""

    def write(cohort: str = "{}", groups: str = GROUPS) -> Path:
        folder = tmp_path / "config"
        folder.mkdir(exist_ok=True)
        site = f"schema: fairsynth.site/1\nsource: story\ncohort: {cohort}\n"
        (folder / "site.yaml").write_text(site, encoding="utf-8")
        (folder / "groups.yaml").write_text(groups, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def twenty(tmp_path: Path) -> Path:
    """Twenty patients with heart failure: even ones white, odd ones black; every fifth dies in the second visit."""
    stories = []
    for number in range(1, 21):
        story = Story(number, sex="MF"[number % 2], ethnicity=("WHITE - RUSSIAN", "BLACK/HAITIAN")[number % 2])
        story.visit(1, day=0, codes=["DIAG//ICD9CM//4280"])
        story.visit(2, day=20, died=number % 5 == 0, codes=["DIAG//ICD9CM//5849", "PROC//ICD9PROC//3961"])
        story.event(1, "LAB//50912", day=1, value=1.0, unit="mg/dL").event(2, "UNIT//MICU", day=20.1)
        stories.append(story.event(2, "DRUG//Heparin Sodium", day=21))
    return write_events(tmp_path / "site", [row for story in stories for row in story.rows])
