"""The fixed sentences of a noised study's page: what epsilon says, what it covers, where the results are.

In:  nothing.   Out: constants that the template prints.
Never: a number of a study.
"""

from __future__ import annotations

from fairsynth.report import wording
from fairsynth.report.wording import Explained

NO_RESULT = (
    "The server has no results: the predictors were trained and judged at each hospital, and nothing of that left it."
    " Whether a site should augment is on its own page."
)
AT_HOME = (
    "Each hospital trained the predictors and judged them on its own held-out patients. Its counts, its verdict and"
    " its losses stayed there: they would need noise too, and of a few hundred held-out patients noise would leave"
    " little to read.",
    "For its own page a hospital runs this on its own machine, with the folder of its site:",
)
MEANING = (
    "Whatever anyone concludes from what left a site would have been concluded nearly as likely without any one of its"
    " patients: by a factor of at most e to the power of epsilon, but for a chance of delta. Epsilon 1 is strong; 3 to"
    " 8 is what studies of this kind reach."
)
AGAINST = (
    "This holds against everyone, the server and the other sites included, whatever else they know. Each site draws its"
    " noise at home and puts on its own share as much as the whole protection needs, so it does not rest on the noise"
    " of others, nor on the masks."
)
TWO_SITES = (
    "With two sites, the other hospital can take its own share off each sum and sees this hospital's number: the noised"
    " one, which is what epsilon covers. Its exact number it does not see."
)
COVERS = (
    "weights of both generators, and the running moments of their optimiser, in every round;",
    "counts by group (N_g, P_g, S_g, TP_g), patients by split, group and label, and the number of visits;",
    "the codes that a site proposes, with their numbers of patients;",
    "whatever follows from these: coefficients, this page, synthetic patients that the generator draws without a look"
    " at real ones.",
)
UNCOVERED = (
    "what a site keeps and then shows in another way: its own page, its predictors, its synthetic patients, whose"
    " groups and outcomes are drawn from real ones without noise (they leave by “fairsynth release” alone);",
    "what holds of many patients: that a group often has a disease is what a study is to find;",
    "a patient of two hospitals: each covers its own part, and what both give away adds up;",
    "other studies with the same patients: each site's own budget adds them up;",
    "what the plan fixes: groups, bounds and settings must not have been chosen by looking at these patients;",
    "that a site took part, when it answered, and the code of a failure.",
)
ACCOUNTANTS = {"pld": "privacy loss distributions (Google's dp-accounting)"}
COHORT_INTRO = (
    "Every number here has noise, and is of all sites together; the server knows no exact one. Numbers of one column"
    " need not add up to those of another."
)
TRAINING_INTRO = (
    "Likelihoods and fairness losses are not on this page: they stayed at the sites, for each would need noise of its"
    " own. The plain generator was never counted."
)
RATES_NOTE = (
    " Only rounds in which the sites counted have a point. Counts have noise, so small groups' lines jump: read no"
    " trend into them."
)
_WORDS = {"site", "group; reference group", "label", "held out", "λ (lambda)", "c_g", "round"}
_SYMBOLS = {"N_g", "P_g", "S_g", "TP_g", "R_g = S_g / N_g"}

HOW_TO_READ = (
    Explained(
        "Noised numbers",
        "A number with noise is as often too high as too low. Large groups' numbers are nearly right; of a small group"
        " they may be far off, and a share of two small noised numbers says nothing.",
    ),
    Explained(
        "What is not here",
        "No verdict, no comparison of approaches and no fidelity: a page that showed them for all sites together would"
        " need the sites' held-out counts.",
    ),
)
GLOSSARY = (
    Explained("epsilon, delta", "The bound on what anyone can learn of one patient; see “Privacy” above."),
    Explained("noise multiplier", "Noise in a step of training, over the norm that a patient's gradient is cut to."),
    *(item for item in wording.GLOSSARY if item.name in _WORDS | _SYMBOLS),
)
