"""The server's door for what a primed start, teach and feedback bring: each kind of poison is refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest
from federation_toys import toy_sites
from test_federation_taught import CODES, SIZE, VOCABULARY, guided_plan
from test_federation_validation import array, field, put

from fairsynth.errors import ProtocolError
from fairsynth.federation.agreement import Members
from fairsynth.federation.messages import AgreeRequest, EnrolRequest, FeedbackRequest, TeachRequest
from fairsynth.federation.plans import plan_sha256
from fairsynth.federation.taught_replies import fed_back, taught
from fairsynth.federation.validation import Door

PLAN = guided_plan()
SITES = toy_sites(PLAN)
NAMES = {"plan_sha256": plan_sha256(PLAN), "vocabulary_sha256": VOCABULARY.sha256}
ASKED = np.full(SIZE, 0.1)
REQUESTS = {
    "agree": AgreeRequest(plan_sha256=NAMES["plan_sha256"], codes=CODES, patients=99, visits=180).pack(),
    "teach": TeachRequest(**NAMES).pack({"weights": ASKED}),
    "feedback": FeedbackRequest(**NAMES).pack({"selected": np.array([0.5, 0.6])}),
}


def agreed(name, change=lambda kind, envelope: envelope):
    """What the door makes of a site's agreement."""
    door, site = Door(plan=PLAN), SITES[name]
    enrolled = door.enrolled(site.enrol(EnrolRequest(plan=PLAN).pack()), site=name)
    return door.agreed(change("agree", site.agree(REQUESTS["agree"])), enrolled=enrolled, vocabulary=VOCABULARY)


def checked(kind, change=lambda kind, envelope: envelope):
    """What the door makes of `site-b`'s reply of this kind after `change`."""
    if kind == "agree":
        return agreed("site-b", change)
    envelope = change(kind, getattr(SITES["site-b"], kind)(REQUESTS[kind]))
    if kind == "teach":
        return taught(envelope, plan=PLAN, site=agreed("site-b"), asked=ASKED)
    return fed_back(envelope, plan=PLAN, site=agreed("site-b"))


GROUPS_AT = VOCABULARY.layout.groups.start
LABEL_AT = VOCABULARY.layout.label


def nobody_above(counts):
    """The same patients, all of them predicted negative."""
    none = np.zeros(len(counts), dtype=np.int64)
    return np.stack([none, none, counts[:, 0] + counts[:, 2], counts[:, 1] + counts[:, 3]], axis=1)


DOOR = {
    "tokens of another shape": ("agree", array("agree", "occurs", lambda old: old[:-1]), "another shape"),
    "tokens as floats": (
        "agree",
        array("agree", "occurs", lambda old: old.astype(np.float64)),
        "another shape or dtype",
    ),
    "no tokens": ("agree", array("agree", "occurs", lambda _: None), "array missing"),
    "runs of another shape": ("agree", array("agree", "shared", lambda old: np.append(old, 0)), "another shape"),
    "a code in more visits than there are": (
        "agree",
        array("agree", "occurs", put(91, 0)),
        "at most the enrolled visits",
    ),
    "a negative code": ("agree", array("agree", "occurs", put(-1, 0)), "counts from 0"),
    "more of a group than enrolled": ("agree", array("agree", "occurs", put(25, GROUPS_AT)), "groups as enrolled"),
    "other labels than enrolled": ("agree", array("agree", "occurs", put(8, LABEL_AT)), "labels as enrolled"),
    "a phenotype of too many": ("agree", array("agree", "occurs", put(43, LABEL_AT + 3)), "enrolled patients"),
    "ages of too many together": (
        "agree",
        array("agree", "occurs", put(42, VOCABULARY.layout.ages.start + 1)),
        "one age band",
    ),
    "patients who start": ("agree", array("agree", "occurs", put(1, VOCABULARY.layout.start)), "no start"),
    "more sharing visits than visits": (
        "agree",
        array("agree", "shared", put(91, 0)),
        "shared at most the enrolled visits",
    ),
    "a loss that is not a number": ("teach", field("teach", loss=float("nan")), "not plain JSON"),
    "a loss below 0": ("teach", field("teach", validation=-1.0), "finite, from 0"),
    "a loss of more patients": ("teach", field("teach", loss=lambda old: old * 1000), "patients with every token"),
    "a validation loss of more patients": ("teach", field("teach", validation=1e9), "patients with every token"),
    "a gradient of another shape": ("teach", array("teach", "gradient", lambda old: old[1:]), "another shape"),
    "a gradient as float32": (
        "teach",
        array("teach", "gradient", lambda old: old.astype(np.float32)),
        "another shape or dtype",
    ),
    "a gradient that is infinite": ("teach", array("teach", "gradient", put(np.inf)), "not a finite number"),
    "a gradient above the patients": ("teach", array("teach", "gradient", put(43.0)), "at most one a patient"),
    "a whole Hessian": ("teach", array("teach", "hessian", lambda _: np.zeros((SIZE, SIZE))), "another shape"),
    "a Hessian above a quarter a patient": (
        "teach",
        array("teach", "hessian", put(11.0)),
        "at most a quarter a patient",
    ),
    "a Hessian that curves down": ("teach", array("teach", "hessian", put(-1.0)), "no negative curvature"),
    "a Hessian of huge numbers": ("teach", array("teach", "hessian", put(1e300)), "at most a quarter a patient"),
    "a patient too many on validation": (
        "feedback",
        array("feedback", "validation", put(9)),
        "the validation patients",
    ),
    "a patient too many of those seen": (
        "feedback",
        array("feedback", "seen", put(99)),
        "training and validation patients",
    ),
    "counts as floats": (
        "feedback",
        array("feedback", "seen", lambda old: old.astype(np.float64)),
        "another shape or dtype",
    ),
    "counts of one group": ("feedback", array("feedback", "seen", lambda old: old[:1]), "another shape"),
    "counts below 0 that add up": (
        "feedback",
        array("feedback", "validation", lambda old: old + np.array([[-9, 0, 9, 0], [0, 0, 0, 0]])),
        "counts from 0",
    ),
    "fewer seen than validated": ("feedback", array("feedback", "seen", nobody_above), "at least those of validation"),
    "another plan": ("teach", field("teach", plan_sha256="0" * 64), "plan_sha256"),
    "another site": ("feedback", field("feedback", site="site-a"), "the one that was asked"),
}


@pytest.mark.parametrize("name", DOOR)
def test_a_poisoned_reply_is_refused_with_a_reason(name):
    kind, change, expected = DOOR[name]
    with pytest.raises(ProtocolError) as caught:
        checked(kind, change)
    assert expected in " ".join(f"{one.what} {one.where} {one.expected}" for one in caught.value.problems)


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_sound_reply_passes(kind):
    assert checked(kind)


def test_a_hessian_of_one_patient_passes_though_it_is_singular():
    row = np.zeros(SIZE)
    row[[0, 5, -1]] = 1
    upper = np.outer(row, row)[np.triu_indices(SIZE)] / 4
    checked("teach", array("teach", "hessian", lambda _: upper))


def test_what_all_sites_show_is_the_sum_of_what_each_shows():
    members = Members(sites={name: agreed(name) for name in SITES}, vocabulary=VOCABULARY)
    replies = [site.agree(REQUESTS["agree"]) for site in SITES.values()]
    assert members.shown.occurs.tolist() == sum(reply.arrays["occurs"] for reply in replies).tolist()
    assert (members.shown.patients, members.shown.visits) == (57 + 42, 180)


def test_sums_of_a_checked_reply_are_those_that_the_site_added_up():
    sums = checked("teach")
    assert (sums.hessian == sums.hessian.T).all()
    rows, label = SITES["site-b"].patients(0, SIZE - 1)
    chance = 1 / (1 + np.exp(-(0.1 * rows.sum(axis=1) + 0.1)))
    padded = np.column_stack([rows, np.ones(len(rows))])
    assert sums.gradient == pytest.approx(padded.T @ (chance - label))
    assert sums.hessian == pytest.approx(padded.T @ (padded * (chance * (1 - chance))[:, None]))
