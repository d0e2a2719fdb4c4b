"""Runs Beam pipelines: runners, workers, work units, resource hints."""
