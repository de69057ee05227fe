"""Ablations, results of runs, tables, the report page."""
