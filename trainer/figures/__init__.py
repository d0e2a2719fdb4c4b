"""Draws attention maps, and shows, encodes and writes figures."""
