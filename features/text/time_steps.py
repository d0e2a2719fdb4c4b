"""Counts the CTC time steps that a label needs."""

from itertools import pairwise


def count_required_steps(label: str) -> int:
    """Returns how many CTC time steps a label needs: one per character, and a blank between equal neighbors."""
    return len(label) + sum(one == other for one, other in pairwise(label))
