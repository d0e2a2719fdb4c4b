"""Trains, evaluates and exports models on the tables of a store.

models ← config, metrics ← data, decoding ← runs ← reports ← training, evaluation, inference, export ← tasks
"""

import features  # noqa: F401 (sets environment variables that TensorFlow and Keras read when they are imported)
