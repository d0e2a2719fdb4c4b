"""Evaluates runs on held-out images: the parts of `capt evaluate`."""
