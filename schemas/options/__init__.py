"""Declares the options of every command: one typed model per command."""
