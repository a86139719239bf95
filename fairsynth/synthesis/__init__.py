"""Step 6: generator -> synthetic patients, made at the site that will use them; they stay there."""
