"""What becomes of a row, in the order in which it is asked: the first that holds is the row's fate; else it is kept."""

from __future__ import annotations

BY_RULE = "left out by rule"
UNREADABLE = "unreadable"
ELSEWHERE = "another site's patient"
NO_PATIENT = "unknown patient"
NO_VISIT = "unknown visit"
NO_EVENT = "gives no event"

FATES = (BY_RULE, UNREADABLE, ELSEWHERE, NO_PATIENT, NO_VISIT, NO_EVENT)
