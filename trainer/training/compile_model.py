"""Builds and compiles models for the seed, precision and devices of a run."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from features.runtime.keras_settings import compute_in, keras
from schemas.errors import UsageError
from trainer.config import LoopConfig
from trainer.training.optimizers import make_optimizer


@contextmanager
def build_scope(config: LoopConfig) -> Iterator[None]:
    """Builds models inside the context with random weights from the run's seed, in the run's precision."""
    keras.utils.set_random_seed(config.seed)
    with compute_in(config.precision):
        yield


def compile_model(
    model: keras.Model,
    config: LoopConfig,
    steps: int,
    loss: Any = None,
    metrics: Sequence[keras.Metric] = (),
    slow: Sequence[keras.Variable] = (),
    lr_multiplier: float = 1.0,
) -> None:
    """Compiles a built model with the optimizer of its run, and builds the optimizer; see `make_optimizer`.

    Omit `loss` and `metrics` if the model computes its own.
    """
    model.compile(
        optimizer=make_optimizer(config, steps, slow, lr_multiplier),
        loss=loss,
        metrics=list(metrics) or None,
        # On the CPU, XLA is not faster, and it compiles every new shape for 8 s.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    # If variables were created in the first step, TensorFlow would trace it twice.
    model.optimizer.build(model.trainable_variables)


def device_scope(devices: str) -> AbstractContextManager[object]:
    """Returns a context that places the building and training of models on devices.

    Args:
        devices: `one`; or `all`, which distributes each batch over all devices. Keras supports `all` on JAX only.

    Raises:
        UsageError: The backend does not support `all`.
    """
    if devices == "one":
        return contextlib.nullcontext()
    if keras.backend.backend() != "jax":
        raise UsageError(
            f"Keras does not distribute batches over devices with the backend {keras.backend.backend()}",
            location="devices: all",
            hint="Set KERAS_BACKEND=jax, or devices: one.",
        )
    distribution: AbstractContextManager[object] = keras.distribution.DataParallel(auto_shard_dataset=False).scope()
    return distribution
