"""The captioners: models that say what is in an image, and what they are made of."""
