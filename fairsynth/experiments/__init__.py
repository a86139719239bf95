"""Whole studies: all sites of a study file on one machine, from raw tables to the report."""
