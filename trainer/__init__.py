"""Trains, evaluates and exports models on the tables of a store."""

import features  # noqa: F401 (sets environment variables that TensorFlow and Keras read when they are imported)
