"""Step 8: mixed -> audit. Predictors trained on each approach's patients, judged on real held-out patients only."""
