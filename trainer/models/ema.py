"""Uses the exponential moving average (EMA) of the weights for validation and prediction (Polyak and Juditsky, 1992).

The optimizer contains the EMA, so a checkpoint contains it, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from features.runtime.keras_settings import keras, ops


class EmaOptimizerMixin:
    """Makes a Keras optimizer keep the EMA separate from the weights.

    Keras overwrites the weights with the EMA at the end of `fit`, which is after every epoch here. Training must
    continue from the weights themselves.
    """

    def finalize_variable_values(self, variables: Any) -> None:
        """Does not overwrite the weights."""

    def overwrite_with_ema(self, variables: Any) -> None:
        """Overwrites the weights with the EMA."""
        super().finalize_variable_values(variables)  # type: ignore[misc]


def has_ema(model: keras.Model) -> bool:
    """Returns whether the optimizer of a model keeps an EMA and has taken a step."""
    return isinstance(_optimizer(model), EmaOptimizerMixin) and bool(ops.convert_to_numpy(model.optimizer.iterations))


@contextmanager
def ema_weights(model: keras.Model) -> Iterator[None]:
    """Replaces the weights of a model with their EMA inside the context, if the model has one."""
    if not has_ema(model):
        yield
        return
    variables = model.trainable_variables
    weights = [ops.convert_to_numpy(variable).copy() for variable in variables]
    _optimizer(model).overwrite_with_ema(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)


def _optimizer(model: keras.Model) -> Any:
    # With mixed precision, Keras wraps the optimizer in one that scales the loss.
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)
