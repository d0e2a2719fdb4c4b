"""Runs as TensorFlow graphs, from encoded images to answers."""
