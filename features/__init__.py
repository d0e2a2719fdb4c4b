"""Computes features of images and tokens of captions, and stores them."""

import schemas  # noqa: F401 (selects the Keras backend before TensorFlow is imported)
from features.runtime.fixed_execution import separate_threads
from features.runtime.gpu_memory import limit_reserved_memory
from features.runtime.numerics import remove_variables

# TensorFlow reads these variables on import, or when it first uses a device.
remove_variables()
limit_reserved_memory()
separate_threads()
