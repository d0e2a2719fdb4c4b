"""Paths and URIs, atomic files, locks, object storage, the local cache, and HTTP address checks."""
