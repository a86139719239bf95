"""Step 5: statistics and weights -> rounds. The protocol without transport; only `flower.py` imports flwr."""
