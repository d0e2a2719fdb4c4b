"""Builds and compiles models for the seed, precision and optimizer of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from features.runtime.keras_settings import compute_in, keras
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
    """Compiles a built model with the optimizer of its run (`make_optimizer`), and builds the optimizer.

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
