"""Flower adapter, server half: receives nothing but messages, and calls `fairsynth.federation.rounds`."""
