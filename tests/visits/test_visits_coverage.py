"""What share of a site's events the vocabulary says, on events counted by hand."""

from __future__ import annotations

from visits_stories import Story, study_plan, write_events

from fairsynth.visits.coverage import coverage, token_kind


def write_site(root, *, shards):
    """Twelve patients: all have heart failure, a mapped and an unmapped test; two have an unknown diagnosis."""
    stories = []
    for number in range(1, 13):
        story = Story(number).visit(1, day=0, codes=["DIAG//ICD9CM//4280"])
        story.event(1, "LAB//50912", day=1, value=9.0, unit="mg/dL").event(
            1, "LAB//50912", day=2, value=1.0, unit="mg/dL"
        )
        story.event(1, "LAB//50912", day=3, value=1e6, unit="mg/dL")  # not plausible: mapped, but no token
        story.event(1, "LAB//50800", day=1).event(1, "UNIT//MICU", day=0)
        if number > 10:
            story.event(1, "DIAG//ICD9CM//ZZ99", day=5).event(1, "DIAG//ICD9CM//4275", day=5)
        stories.append(story)
    return write_events(root, [row for story in stories for row in story.rows], shards=shards)


def test_events_and_patients_are_counted_by_code_and_by_token_whatever_the_shards(tmp_path, config):
    folder = config(cohort="{exclude_codes: [DIAG//ICD9CM//4275]}")
    for shards in (1, 5):
        found = coverage(write_site(tmp_path / str(shards), shards=shards), config=folder, plan=study_plan())
        columns = ("code", "unit", "standard", "events", "patients")
        assert found.codes.select(columns).rows() == [
            ("LAB//50912", "mg/dL", True, 36, 12),
            ("DIAG//ICD9CM//4280", None, True, 12, 12),
            ("LAB//50800", None, False, 12, 12),
            ("UNIT//MICU", None, False, 12, 12),
            ("DIAG//ICD9CM//4275", None, True, 2, 2),
            ("DIAG//ICD9CM//ZZ99", None, False, 2, 2),
        ]
        assert found.tokens.rows() == [
            ("diagnoses", None, 2),  # excluded: it says nothing, although it has a category
            ("diagnoses", "DX//CCS//108", 12),
            ("diagnoses", "DX//ICD9//ZZ9", 2),
            ("labs", None, 24),
            ("labs", "LAB//2160-0//critical_high", 12),
            ("labs", "LAB//2160-0//normal", 12),
            ("units", "UNIT//MICU", 12),
        ]
        assert found.patients == {"diagnoses": 12, "labs": 12, "units": 12}


def test_every_token_has_a_kind():
    tokens = ("DX//CCS//1", "PX//CLASS//eye", "RX//x", "LAB//1-1//low", "UNIT//MICU", "OBS//a", "GAP//0d", "LOS//0d")
    assert [token_kind(token) for token in tokens] == [
        *("diagnoses", "procedures", "drugs", "labs", "units", "observations", "intervals", "intervals")
    ]
