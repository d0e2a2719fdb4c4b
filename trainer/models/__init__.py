"""Captioners, the recognizer, their layers, losses and hyperparameters."""
