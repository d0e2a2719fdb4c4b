"""Captions and recognizes images with a trained run."""
