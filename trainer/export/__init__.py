"""Exports runs as TensorFlow SavedModels."""
