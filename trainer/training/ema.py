"""Averaging: a run may answer with a running average of its weights, which wanders less than the weights themselves.

The optimizer keeps the average with its own state, so that a checkpoint holds it and a run that goes on goes on with it
(Polyak and Juditsky, 1992; as an exponential average in most recipes since).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from features.runtime.keras_settings import keras, ops


class EmaCallback:
    """An optimizer that keeps an exponential average of the weights beside them; mixed into one of Keras'.

    Keras would put the average in the weights' place when `fit` ends, which here is after every epoch; training goes on
    from the weights themselves.
    """

    def finalize_variable_values(self, variables: Any) -> None:
        """Leave the weights as they are."""

    def put_average(self, variables: Any) -> None:
        """Put the average in the weights' place."""
        super().finalize_variable_values(variables)  # type: ignore[misc]


def keeps_average(model: keras.Model) -> bool:
    """Whether a model is trained by an optimizer that keeps an average, and has taken a step."""
    return isinstance(_optimizer(model), EmaCallback) and int(ops.convert_to_numpy(model.optimizer.iterations)) > 0


@contextmanager
def ema_weights(model: keras.Model) -> Iterator[None]:
    """Within the block a model has the average in its weights' place, where there is one."""
    if not keeps_average(model):
        yield
        return
    variables = model.trainable_variables
    kept = [ops.convert_to_numpy(variable).copy() for variable in variables]
    _optimizer(model).put_average(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)


def _optimizer(model: keras.Model) -> Any:
    # In half precision Keras wraps the optimizer in one that scales the loss.
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)
