"""The recognizer of words: its model, its losses, and how its logits are read."""
