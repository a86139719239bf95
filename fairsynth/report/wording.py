"""The report's fixed sentences: names of things, how to read them, what leaves a site, glossary.

In:  nothing.   Out: constants that the template prints.
Never: a number of a study.
"""

from __future__ import annotations

from typing import NamedTuple

APPROACHES = {
    "real_only": "Real only",
    "plain_synthetic": "Real + plain synthetic",
    "oversampled": "Real + oversampling",
    "fairsynth": "Real + FairSynth",
}
PREDICTORS = {
    "transformer": "Transformer",
    "gradient_boosting": "Gradient boosting",
    "logistic_regression": "Logistic regression",
}
THRESHOLDS = {"half": "score of at least 0.5", "tuned": "tuned on validation patients"}
TASKS = {
    "in_hospital_mortality": "death in hospital during the last visit",
    "mortality_next_visit": "death in hospital during the next visit",
    "readmission_30d": "readmission within 30 days of the discharge",
}
POSITIVES = {
    "in_hospital_mortality": "deaths",
    "mortality_next_visit": "deaths",
    "readmission_30d": "readmissions",
}
METRICS = {
    "disparate_impact": "Disparate impact",
    "worst_tpr": "Worst TPR",
    "f1": "F1",
    "auroc": "AUROC",
    "lowest_group_auroc": "Lowest group AUROC",
    "selection_rate": "Selection rate",
    "ppv": "PPV",
    "tpr": "TPR",
}
INSUFFICIENT = "INSUFFICIENT"


class Explained(NamedTuple):
    """A heading and what it means."""

    name: str
    meaning: str


RESULTS_INTRO = (
    "Every model was judged on the same patients of the sites' own tables (“real”), held out from all training. The"
    " setting below was fixed by the study's plan, not chosen by its result; every other predictor and threshold is"
    " in the lists under it."
)
COHORT_INTRO = (
    "“Real” patients are those in a site's tables, as opposed to synthetic ones made by a generator. The server"
    " cannot see whether a site's tables come from a hospital or from a simulator: ask the site."
)
COHORT_INTRO_AT_HOME = (
    "“Real” patients are those in this site's tables, as opposed to synthetic ones made by a generator."
)
NO_RELEASE = (
    "This page is for site {site} itself. It is made of the site's own folder and rests on its exact counts, without"
    " masks or noise: it is no release, so pass neither the page nor numbers of it on. Counts of fewer than {minimum}"
    " people are not printed all the same, in case a print-out is left lying about."
)
NO_JOURNAL = (
    "Not on this page: how the generators learned, from round to round, over all sites. That is in the server's"
    " journal, which a site does not have; see the server's report."
)
NO_TRIALS = "Which guides were tried is in the server's journal, and so in the server's report alone."

HOW_TO_READ = (
    Explained(
        "The four approaches",
        "The same predictor is trained four times: on the site's real patients alone, and on the same real patients"
        " plus an equal number of added ones. The added ones are synthetic patients of a plain generator, copies of"
        " real patients (oversampling), or synthetic patients of the fairness-optimised generator, aimed at the"
        " cells a site lacks. Every approach is judged on the same real patients, who were held out from all"
        " training.",
    ),
    Explained(
        "Worst TPR",
        "Of the patients who had the outcome, the share that the model flagged, in the group where that share is"
        " lowest. Higher is better: it says how many true cases the least well served group loses. Groups with too"
        " few true cases are left out and named, because their rate would be chance.",
    ),
    Explained(
        "Disparate impact",
        "The share of patients flagged in the other groups divided by the share flagged in the reference groups; 1"
        " is equal. A model that flags nobody, or everybody, looks perfect here, and groups may truly differ in"
        " risk. So read it beside the selection rate and the PPV, never alone.",
    ),
    Explained(
        "|log DI|; should a site augment?",
        "|log DI| is how far disparate impact is from 1, whichever way; 0 is parity. A site's verdict asks whether the"
        " added patients are shown to help its worst served group without harm to F1; no shown gain is no reason to"
        " augment, and no proof that there is none.",
    ),
    Explained(
        "F1, PPV, AUROC",
        "F1 balances finding true cases against false alarms; PPV is the share of alarms that were right; AUROC is"
        " how well the scores rank patients, whatever the threshold. A fairness gain that costs much of these may"
        " not help anyone.",
    ),
    Explained(
        "Mean (sd) and interval",
        "The mean and standard deviation are over repeated trainings with other random seeds. The interval below"
        " them also covers chance in who happened to be held out. Where the intervals of two approaches overlap,"
        " this study does not show that they differ.",
    ),
    Explained(
        "INSUFFICIENT and <n",
        "INSUFFICIENT means that too few held-out patients had the outcome for a rate to mean anything: it is"
        " neither good nor bad news. Counts of people below the minimum cell are printed as “<” and that minimum,"
        " zero as 0.",
    ),
    Explained(
        "Fidelity",
        "Each dot is a code: how often it occurs in real held-out visits against synthetic visits. R2 = 1 means that"
        " the synthetic visits have the same code frequencies. Even real training visits do not reach 1 against"
        " held-out visits, so that value is the ceiling to compare with. Equal frequencies do not prove that single"
        " patients are plausible, or private.",
    ),
)

LEAVES = (
    "After each round of local training: generator weights (as deviations from how often the site itself sees each"
    " code) and the running moments of its optimiser, together with the number of training patients.",
    "For each group: members, positives, predicted positives and true positives of the training patients (sums).",
    "The likelihood of the training and of the validation patients (sums).",
    "Once: the codes that enough training patients carry, with the number of patients for each; the cohort flow;"
    " patients by split, group and label; a hash that names the data.",
    "At the end: confusion counts and score histograms by group on held-out patients, visits with each code, and how"
    " FairSynth's patients changed worst TPR, F1 and |log DI| at the site (a mean and two limits).",
)
LEAVES_MASKED = (
    "Everything below leaves a site as one vector of masked numbers for each message, of which the server learns the"
    " sum over all sites and nothing else.",
    "After each round of local training: generator weights (as deviations from how often a site itself sees each code)"
    " and the running moments of the optimiser, averaged over patients; the number of training patients.",
    "For each group: members, positives, predicted positives and true positives of the training patients.",
    "The likelihood of the training and of the validation patients.",
    "Once: the codes that enough training patients of a site carry, with the number of patients for each; visits;"
    " patients by split, group and label; a hash that names the data of all sites together.",
    "At the end: confusion counts and score histograms by group on held-out patients, and visits with each code.",
)
LEAVES_PRIMED = (
    "Before training, because this study began primed: how many training patients have each token of the label visit"
    " (group, sex, age, phenotype, outcome), in how many of their visits each code is, and in how many two codes of one"
    " measurement are. Numbers below the minimum cell are among them.",
)
LEAVES_TAUGHT = (
    "After training, because this study had a teacher, some 25 times: the loss of a logistic regression with its"
    " gradient and Hessian, summed over the training patients. The first Hessian counts the patients with both tokens"
    " of every pair: a rare token can give away the others of one patient.",
    "After that, for each guide that was tried: confusion counts by group of validation patients, and of training and"
    " validation patients together.",
)
STAYS = (
    "Every patient's record, real and synthetic, every identifier and date, the trained predictors, what a site makes"
    " of the generator at home, its own part of a teacher, and log texts: an error leaves a site only as a code.",
)
STAYS_MASKED = (
    "Of each site, because this study was masked: its counts, its weights, its cohort flow, the codes that it proposed,"
    " and whether it should augment. Each site has them in its own folder.",
)
UNPROTECTED_PLAIN = (
    "This study was plain: what leaves a site was not masked, so the server saw each site's own counts and"
    " weights; and no differential privacy is applied, so weights may hold traces of single patients. Sites should"
    " run it only where they would share such aggregates with the server's operator, and should treat synthetic"
    " patients as confidential."
)
UNPROTECTED_MASKED = (
    "This study was masked: the server saw sums over all sites alone, and cannot take them apart unless all sites but"
    " one help it. The sums themselves are open: to every site, which can subtract its own part, and to the"
    " server. No differential privacy is applied, so the sum of the weights may hold traces of single patients;"
    " synthetic patients should be treated as confidential."
)
UNPROTECTED_TWO = (
    " With two sites each can subtract its own part from every sum, and so knows the other's counts and weights; the"
    " sites have agreed to that in the document that the plan names."
)
LEAVES_NOISED = (
    "Everything below leaves a site as one vector of masked numbers for each message, of which the server learns the"
    " sum over all sites; and each site had put noise on its share before it was masked.",
    "After each round of local training: generator weights and the running moments of the optimiser, from training in"
    " which each patient's gradient was clipped and every step had noise.",
    "In some rounds, of the FairSynth generator alone: for each group members, positives, predicted positives and true"
    " positives of the training patients.",
    "Once: the codes that stand out of the noise, with a number of patients for each; visits; patients by split, group"
    " and label.",
)
STAYS_NOISED = (
    "The audit: every result of a predictor, the likelihoods, the cohort flow, and whether a site should augment. Each"
    " site has them in its own folder.",
)
UNPROTECTED_NOISED = (
    "What left the sites had noise, and says little of any one patient: how little, is epsilon. It says much of all"
    " patients together, which is its purpose. What a site keeps has no noise: synthetic patients, predictors and the"
    " site's own page are covered by no epsilon, and should be treated as confidential."
)

GLOSSARY = (
    Explained("site", "One source of data, usually a hospital. Its patients' records do not leave it."),
    Explained(
        "group; reference group", "A value of the sensitive attribute; the groups that the others are compared to."
    ),
    Explained(
        "label", "1 when the patient had the outcome that is predicted, else 0. A patient with label 1 is a positive."
    ),
    Explained("held out", "Real patients set aside before any training, used only to judge."),
    Explained("R; R'", "The real training patients; the synthetic patients."),
    Explained("N_g", "Members: training patients of group g."),
    Explained("P_g", "Positives: members of group g with label 1; for the codes target, their true codes."),
    Explained("S_g", "Predicted: expected number of positive predictions in group g, added over patients."),
    Explained("TP_g", "True positives: expected number of positive predictions in group g that are right."),
    Explained("R_g = S_g / N_g", "Rate of group g; the training figure shows it by round."),
    Explained("L_F", "Fairness loss of the generator: 0 is parity, as the study's objective defines it."),
    Explained("λ (lambda)", "Weight of the fairness loss beside the likelihood; 0 is the plain generator."),
    Explained(
        "c_g", "Coefficients: how the fairness loss changes with S_g and TP_g; the server sends them to the sites."
    ),
    Explained(
        "NLL",
        "Negative log-likelihood, in nats a visit: how surprised the generator is by real visits. Lower is better.",
    ),
    Explained("DI", "Disparate impact: selection rate of the other groups over that of the reference groups."),
    Explained(
        "TPR; worst TPR (WTPR)", "True positive rate (sensitivity); its lowest value over groups with enough positives."
    ),
    Explained("selection rate", "Share of patients whom the model flags."),
    Explained("PPV", "Positive predictive value (precision): share of flagged patients who have the outcome."),
    Explained("AUROC", "Chance that a patient with the outcome gets a higher score than one without; 0.5 is guessing."),
    Explained("R2", "Coefficient of determination of code prevalence, synthetic against real held-out visits."),
    Explained("round", "One exchange: the server sends weights, each site trains, the server averages."),
)
