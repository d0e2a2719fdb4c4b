"""Compiling: a run's model with its loss, its metrics and its optimizer, ready to be trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from features.runtime.keras_settings import keras
from trainer.config import LoopConfig
from trainer.training.optimizers import make_optimizer


@contextmanager
def making(config: LoopConfig) -> Iterator[None]:
    """Models made and compiled within the block draw their weights from the run's seed and compute in its precision."""
    keras.utils.set_random_seed(config.seed)
    with computing_in(config.precision):
        yield


def compile_model(
    model: keras.Model,
    config: LoopConfig,
    steps: int,
    loss: Any = None,
    metrics: Sequence[keras.Metric] = (),
    slow: Sequence[keras.Variable] = (),
    share: float = 1.0,
) -> None:
    """Give a model its loss, its metrics, and the optimizer that its run is set to, built.

    Args:
        model: keras.Model. Built.
        config: LoopConfig. How the run learns.
        steps: int. Steps an epoch.
        loss: keras.losses.Loss, function or None. As Keras takes it; None where the model has its own.
        metrics: sequence of keras.Metric. What is measured besides; none where the model has its own.
        slow: sequence of keras.Variable. Those that learn at another rate,
        share: float. which is this share of the others'.
    """
    model.compile(
        optimizer=make_optimizer(config, steps, slow, share),
        loss=loss,
        metrics=list(metrics) or None,
        # XLA was measured no faster on the CPU, and it compiles for 8 s at every new shape.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    # TensorFlow traces a step twice where variables are made within it.
    model.optimizer.build(model.trainable_variables)


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Layers made within the block compute in `precision`, a Keras dtype policy; their weights stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
