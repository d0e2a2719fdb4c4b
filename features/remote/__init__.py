"""Object stores as places of a store: paths that are addresses, conditional puts, and a mirror of what is read."""
