"""The app that `benchmarks.messages` times."""
