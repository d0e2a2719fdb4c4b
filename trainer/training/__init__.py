"""DecodingStrategy a run learns: epochs, checkpoints, optimizers, what is watched meanwhile."""
