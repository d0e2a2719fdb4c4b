"""Configures Keras and detects the numerics class of this process."""
