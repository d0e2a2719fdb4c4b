"""Recognizes the format of a dataset from its first files and records: `capt inspect`."""
