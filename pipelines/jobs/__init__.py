"""The extraction job and the caption job: planned work in, committed shards out."""
