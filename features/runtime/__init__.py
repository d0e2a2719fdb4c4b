"""The Keras backend, Keras settings and numerics of this process."""
