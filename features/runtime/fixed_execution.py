"""Fixes the batch size and the threads of oneDNN where the bits of a row would depend on them.

With AVX-512, oneDNN computes a row in the same order in every batch and with any number of threads.
"""

import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

from features.runtime.numerics import read_cpu_flags

# TensorFlow's sessions share the threads of the first one, unless this variable is set before it.
_OWN_THREADS = "TF_OVERRIDE_GLOBAL_THREADPOOL"


@dataclass(frozen=True)
class FixedExecution:
    """How a frozen graph runs.

    Args:
        batch_size: Number of images per forward pass.
        threads: Number of threads per forward pass, regardless of the number of cores.
    """

    batch_size: int
    threads: int


# The kernels compute 6 (oneDNN) or 24 (Eigen) rows of a matrix at once, and the others in another order. oneDNN also
# divides sums among threads.
_AVX2 = FixedExecution(batch_size=24, threads=4)

_MAX_CALLS = 4

_log = logging.getLogger("capt")


def find_fixed_execution(flags: frozenset[str]) -> FixedExecution | None:
    """Returns how a processor must run frozen graphs so that a row's bits depend on its image only; None if any way."""
    return _AVX2 if "avx2" in flags and "avx512f" not in flags else None


def separate_threads() -> None:
    """Gives each session of TensorFlow its own threads on a processor that needs a fixed number of them."""
    if not find_fixed_execution(read_cpu_flags()):
        return
    if _uses_tensorflow() and not os.environ.get(_OWN_THREADS):
        _log.warning(
            "TensorFlow was used before capt was imported. On this processor, the bits of features then depend on the "
            "number of cores. Import capt first, or set %s=true.",
            _OWN_THREADS,
        )
    os.environ[_OWN_THREADS] = "true"


def _uses_tensorflow() -> bool:
    """Returns whether this process has used a device of TensorFlow, which then has read the variable."""
    module: Any = sys.modules.get("tensorflow.python.eager.context")
    context = module.context_safe() if module else None
    return context is not None and bool(context._initialized)


def count_parallel_calls(execution: FixedExecution | None) -> int:
    """Returns the number of concurrent forward passes that use all cores, at most four because of their memory."""
    return min(max(1, (os.cpu_count() or 1) // execution.threads), _MAX_CALLS) if execution else 1
