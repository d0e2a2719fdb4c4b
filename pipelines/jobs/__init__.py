"""Runs the extraction and tokenization jobs: planned work in, committed shards out."""
