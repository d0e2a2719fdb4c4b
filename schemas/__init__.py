"""Declares tables, table configs, manifests, command options and errors."""

import os

from schemas.default_backend import find_default_backend

# TensorFlow imports Keras, so the backend must be set first. `features.runtime.keras_backend` checks it.
os.environ.setdefault("KERAS_BACKEND", find_default_backend())
