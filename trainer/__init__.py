"""Training from the store: input, models, decoding, plots."""
