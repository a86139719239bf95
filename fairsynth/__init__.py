"""FairSynth: hospitals train one fairness-optimised generator of synthetic patients together; no record leaves home."""
