"""Lists, hashes and classifies the inputs of a job."""
