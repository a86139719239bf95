"""Measurements: each performance claim is a command here."""
