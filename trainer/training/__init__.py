"""Trains models: the training loop, optimizers, warm starts and validation."""
