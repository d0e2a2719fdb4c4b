"""Defines the captioners and the recognizer: layers, losses and hyperparameters."""
