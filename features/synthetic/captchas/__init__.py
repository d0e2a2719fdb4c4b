"""Generates synthetic CAPTCHAs. Each is a function of its seed, its number, and the word list and fonts."""
