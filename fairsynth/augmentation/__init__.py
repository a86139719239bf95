"""Step 7: real + synthetic -> mixed: which patients a site adds to its own, and the baselines that add copies."""
