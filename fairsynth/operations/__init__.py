"""What administrators ask of a running study and of a site that takes part: checks, state, backup."""
