"""What needs pipelines and trainer both."""

import features  # noqa: F401 (the settings that TensorFlow and Keras take when they are imported)
