"""What needs pipelines and trainer both."""
