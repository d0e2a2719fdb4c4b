"""Lists, downloads and hashes the inputs of a job, and classifies them in a job database."""
