"""Generates synthetic datasets."""
