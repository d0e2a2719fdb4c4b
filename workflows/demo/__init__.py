"""Runs the whole workflow on synthetic data, or on a user's captioned images, and writes one page about it."""
