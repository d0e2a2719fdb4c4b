"""Experiments: a grid of trials over one store, its tables prepared once, its runs trained, scored and compared."""
