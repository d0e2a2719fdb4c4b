"""Beam pipelines: one module per source dataset, one per job."""

import features  # noqa: F401 (the settings that TensorFlow and Keras take when they are imported)
