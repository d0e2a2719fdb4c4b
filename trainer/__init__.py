"""Training from the store: input, models, decoding, plots."""

import features  # noqa: F401 (the settings that TensorFlow and Keras take when they are imported)
