"""Optimizers and learning-rate schedules, as a run's configuration names them.

A schedule is a function of the step that the optimizer counts, and a checkpoint keeps that count, so a run that was
killed goes on at the rate at which it stopped.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from trainer.config import TrainingConfig

_OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


@keras.saving.register_keras_serializable("capt")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that first rises from 0 in a straight line.

    Args:
        rate: float or keras.optimizers.schedules.LearningRateSchedule. What it rises to, and goes on with.
        steps: int. Steps of the rise.
    """

    def __init__(self, rate: Any, steps: int) -> None:
        self.rate = rate
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        risen = ops.minimum((ops.cast(step, "float32") + 1) / self.steps, 1.0)
        return risen * (self.rate(step) if callable(self.rate) else self.rate)

    def get_config(self) -> dict[str, Any]:
        return {"rate": keras.saving.serialize_keras_object(self.rate), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        return cls(keras.saving.deserialize_keras_object(config["rate"]), config["steps"])


def make_optimizer(config: TrainingConfig, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a run.

    Args:
        config: TrainingConfig. Names it, its learning rate and its clipping.
        steps: int. Steps an epoch.
    """
    rate = _schedule(config, steps)
    rate = WarmUp(rate, config.warmup_steps) if config.warmup_steps else rate
    return _OPTIMIZERS[config.optimizer](rate, global_clipnorm=config.clip_norm)


def _schedule(config: TrainingConfig, steps: int) -> Any:
    schedules = keras.optimizers.schedules
    if config.schedule == "step":
        return schedules.ExponentialDecay(
            config.learning_rate, config.decay_epochs * steps, config.decay, staircase=True
        )
    if config.schedule == "cosine":
        return schedules.CosineDecay(config.learning_rate, config.epochs * steps)
    return config.learning_rate
