"""Combines pipelines and trainer: the demo, experiments, retraining and the model registry."""

import features  # noqa: F401 (sets environment variables that TensorFlow and Keras read when they are imported)
