"""Prints log messages, tables and progress bars."""
