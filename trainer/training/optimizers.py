"""Builds the optimizer of a run, with its learning-rate schedule.

A learning-rate schedule is a function of the optimizer's step count. A checkpoint contains this count, so a resumed run
continues with the same learning rate.
"""

from collections.abc import Sequence
from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.config import LoopConfig
from trainer.models.ema import EmaOptimizerMixin

_OPTIMIZERS: dict[str, type[keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}
_NEVER_DECAY = ["bias", "gamma", "beta"]


@keras.saving.register_keras_serializable("capt")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Increases the learning rate linearly from 0 in `steps` steps; `rate` is the number or schedule after them."""

    def __init__(self, rate: Any, steps: int) -> None:
        self.rate = rate
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        factor = ops.minimum((ops.cast(step, "float32") + 1) / self.steps, 1.0)
        return factor * (self.rate(step) if callable(self.rate) else self.rate)

    def get_config(self) -> dict[str, Any]:
        return {"rate": keras.saving.serialize_keras_object(self.rate), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        return cls(keras.saving.deserialize_keras_object(config["rate"]), config["steps"])


class _TwoRates:
    """Makes a Keras optimizer multiply the learning rate of variables, by `id`, by a factor."""

    slow: frozenset[int] = frozenset()
    lr_multiplier = 1.0

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)  # type: ignore[misc]
        self._slow_indices = frozenset(i for i, variable in enumerate(variables) if id(variable) in self.slow)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # Scaling the gradient would have no effect with Adam and RMSprop, which normalize it.
        is_slow = self._get_variable_index(variable) in self._slow_indices  # type: ignore[attr-defined]
        rate = learning_rate * self.lr_multiplier if is_slow else learning_rate
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


def make_optimizer(
    config: LoopConfig, steps: int, slow: Sequence[keras.Variable] = (), lr_multiplier: float = 1.0
) -> keras.optimizers.Optimizer:
    """Builds the optimizer of a run with `steps` per epoch; the rate of `slow` variables is multiplied by a factor."""
    schedules = keras.optimizers.schedules
    rate: Any = config.learning_rate
    if config.lr_schedule == "step":
        rate = schedules.ExponentialDecay(rate, config.lr_decay_epochs * steps, config.lr_decay_rate, staircase=True)
    elif config.lr_schedule == "cosine":
        rate = schedules.CosineDecay(rate, config.num_epochs * steps)
    rate = WarmUp(rate, config.warmup_steps) if config.warmup_steps else rate
    kind = _OPTIMIZERS[config.optimizer]
    mixed = (*((_TwoRates,) if slow else ()), *((EmaOptimizerMixin,) if config.ema_momentum else ()))
    kind = type(kind.__name__, (*mixed, kind), {}) if mixed else kind
    options = {"use_ema": True, "ema_momentum": config.ema_momentum} if config.ema_momentum else {}
    decay = config.weight_decay or None
    optimizer = kind(rate, global_clipnorm=config.global_clipnorm, weight_decay=decay, **options)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=_NEVER_DECAY)
    if slow:
        optimizer.slow, optimizer.lr_multiplier = frozenset(map(id, slow)), lr_multiplier
    return optimizer
