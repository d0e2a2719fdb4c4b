"""Beam pipelines: one module per source dataset, one per job."""
