"""Audit -> report: one HTML file that opens without a network."""

from fairsynth.report.build import build, build_own

__all__ = ["build", "build_own"]
