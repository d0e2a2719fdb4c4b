"""Accesses local and remote files: paths, URIs, atomic writes, locks, buckets, the local cache, HTTP connections."""
