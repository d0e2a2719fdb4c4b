"""What a record is: tables, recipes, manifests, and the one family of errors."""

import os

# TensorFlow imports Keras with it, whatever module asks for TensorFlow first. `features.runtime.keras_backend`
# checks it.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
