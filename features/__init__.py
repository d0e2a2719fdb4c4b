"""What is done to one image or one caption, and where the results are kept."""

import schemas  # noqa: F401 (the backend of Keras, before TensorFlow)
from features.runtime.numerics import remove_variables

# TensorFlow reads them when it is imported, whichever module asks for it first.
remove_variables()
