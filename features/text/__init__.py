"""Standardizes captions, builds vocabularies, and converts captions to token IDs."""
