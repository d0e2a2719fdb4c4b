"""Reproduces results from recipes: pinned data, settings and seeds, and the bands of the scores."""
