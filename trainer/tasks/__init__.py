"""Defines the tasks that models are trained for: one module per task, and the base class of all."""
