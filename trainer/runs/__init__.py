"""Reads and writes run directories, and predicts with trained runs."""
