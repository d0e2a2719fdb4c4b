"""Figures and HTML parts of reports."""
