"""Tasks that models are trained for: one module per task, and the protocol that it implements."""
