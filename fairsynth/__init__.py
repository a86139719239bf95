"""FairSynth: hospitals train one fairness-optimised generator of synthetic patients together, and no record leaves home."""
