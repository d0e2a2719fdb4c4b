"""Run directories: what is in them, and what a trained run answers."""
