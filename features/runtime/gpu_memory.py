"""Lets TensorFlow and JAX reserve the memory of a GPU as they need it, instead of nearly all of it at the start.

Both read their variable when they first use a GPU, so it is set when `features` is imported.
"""

import os

from schemas.errors import UsageError

VARIABLE = "CAPT_GPU_MEMORY"
GROW, ALL = "grow", "all"

# Variables of TensorFlow and JAX. PyTorch always reserves memory as needed.
_GROWTH = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def limit_reserved_memory() -> None:
    """Sets the variables of the libraries that a user has not set, unless `CAPT_GPU_MEMORY` is `all`."""
    if os.environ.get(VARIABLE) != ALL:
        for name, value in _GROWTH.items():
            os.environ.setdefault(name, value)


def check_gpu_memory() -> None:
    """Raises UsageError if `CAPT_GPU_MEMORY` has an unknown value."""
    value = os.environ.get(VARIABLE) or GROW
    if value not in (GROW, ALL):
        hint = f"Use {GROW} (reserve memory as needed) or {ALL} (reserve all memory at the start)."
        raise UsageError(f"unknown value {value!r}", location=VARIABLE, hint=hint)
