"""Audit -> report: one HTML file that opens without a network."""

from fairsynth.report.build import build

__all__ = ["build"]
