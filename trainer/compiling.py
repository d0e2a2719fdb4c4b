"""Compiling: a run's model with its loss, its metrics and its optimizer, ready to be trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from trainer.captioner import Captioner
from trainer.directory import (
    RunRecord,
)
from trainer.losses import CrossEntropy, MaskedAccuracy, MaskedCrossEntropy
from trainer.optimizers import make_optimizer


def compiled_model(root: Path, record: RunRecord, steps: int) -> tuple[Captioner, list[keras.Metric]]:
    """The run's model with weights drawn from its seed, ready to be trained, and what it measures besides the loss.

    Args:
        root: Path. The run directory.
        record: RunRecord. The run.
        steps: int. Steps an epoch.
    """
    config = record.training
    keras.utils.set_random_seed(config.seed)
    with computing_in(config.precision):
        model = record.build(root)
        learning = model.feature_scale.network.trainable_variables if record.extractor else ()
        metrics = [CrossEntropy(model.left_out), MaskedAccuracy(model.left_out)]
        # XLA was measured no faster on the CPU, and it compiles for 8 s at every new shape.
        model.compile(
            optimizer=make_optimizer(config, steps, learning),
            loss=MaskedCrossEntropy(config.label_smoothing, model.left_out),
            metrics=metrics,
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
    return model, metrics


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Layers made within the block compute in `precision`, a Keras dtype policy; their weights stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
