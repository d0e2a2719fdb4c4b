"""Generates synthetic datasets of scenes and CAPTCHAs."""
