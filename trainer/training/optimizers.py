"""Optimizers and learning-rate schedules, as a run's configuration names them.

A schedule is a function of the step that the optimizer counts, and a checkpoint keeps that count, so a run that was
killed goes on at the rate at which it stopped.
"""

from collections.abc import Sequence
from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.config import LoopConfig
from trainer.training.ema import EmaCallback

_OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}
_NEVER_DECAY = ["bias", "gamma", "beta"]


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


class _TwoRates:
    """An optimizer some of whose variables learn at a share of the rate, set by `slow_down`."""

    _slow: frozenset[int] = frozenset()
    _share = 1.0

    def slow_down(self, variables: Sequence[keras.Variable], share: float) -> None:
        """Let these learn at a share of the rate; called before the optimizer is built."""
        self._share = share
        self._named = frozenset(id(variable) for variable in variables)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)  # type: ignore[misc]
        self._slow = frozenset(i for i, variable in enumerate(variables) if id(variable) in self._named)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # A gradient's size would not do: Adam and RMSprop divide it out again.
        is_slow = self._get_variable_index(variable) in self._slow  # type: ignore[attr-defined]
        rate = learning_rate * self._share if is_slow else learning_rate
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


def make_optimizer(
    config: LoopConfig, steps: int, slow: Sequence[keras.Variable] = (), share: float = 1.0
) -> keras.optimizers.Optimizer:
    """The optimizer of a run.

    Args:
        config: LoopConfig. Names it, its learning rate, its clipping, and what it does to weights beside learning.
        steps: int. Steps an epoch.
        slow: sequence of keras.Variable. Those that learn at another rate,
        share: float. which is this share of the others'.
    """
    rate = _schedule(config, steps)
    rate = WarmUp(rate, config.warmup_steps) if config.warmup_steps else rate
    kind = _OPTIMIZERS[config.optimizer]
    mixed = (*((_TwoRates,) if slow else ()), *((EmaCallback,) if config.ema_momentum else ()))
    kind = type(kind.__name__, (*mixed, kind), {}) if mixed else kind
    options = {"use_ema": True, "ema_momentum": config.ema_momentum} if config.ema_momentum else {}
    decay = config.weight_decay or None
    optimizer = kind(rate, global_clipnorm=config.global_clipnorm, weight_decay=decay, **options)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=_NEVER_DECAY)
    if slow:
        optimizer.slow_down(slow, share)
    return optimizer


def _schedule(config: LoopConfig, steps: int) -> Any:
    schedules = keras.optimizers.schedules
    if config.lr_schedule == "step":
        return schedules.ExponentialDecay(
            config.learning_rate, config.lr_decay_epochs * steps, config.lr_decay_rate, staircase=True
        )
    if config.lr_schedule == "cosine":
        return schedules.CosineDecay(config.learning_rate, config.epochs * steps)
    return config.learning_rate
