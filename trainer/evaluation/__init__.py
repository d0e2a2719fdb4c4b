"""How good runs are: the parts of `capt evaluate`."""
