"""Step 4: generator -> fairness statistics. Arithmetic on small arrays of counts by group; no files, no flwr."""
