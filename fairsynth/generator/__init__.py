"""Visits -> generator: HALO, its training with a fairness term, its exact sampler and its checkpoints."""
