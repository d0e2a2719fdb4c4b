"""Selects, joins and batches the data of runs, and finds the images that a user names."""
