"""Step 2: events -> visits. Cohort, shared vocabulary, tasks, splits, and CSR records."""
