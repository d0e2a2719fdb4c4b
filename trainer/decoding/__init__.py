"""Generates captions and predicts labels from the logits of a model."""
