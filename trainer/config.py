"""What a run is set to: how it trains, and the sizes of its model. Typed, and unknown keys are refused by name."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from schemas.errors import UsageError
from schemas.recipes import Frozen
from trainer.model_configs import ModelConfig

Part = TypeVar("Part", bound=Frozen)


class TrainingConfig(Frozen):
    """How a captioner is trained, whatever its model.

    Args:
        seed: int. Decides initial weights, order and dropout.
        epochs: int. Passes over the train split, or over `steps_per_epoch` batches.
        steps_per_epoch: int or None. Batches an epoch, drawn with replacement; None for one pass over the split.
        batch_size: int. Captions a step.
        learning_rate: float. Of Adam (Kingma and Ba, 2015).
        checkpoint_every: int or None. Steps between checkpoints, besides the one after each epoch.
        max_words: int or None. Words at most in a caption made by the model; None for the longest of the train split.
    """

    seed: int = Field(0, ge=0, lt=1 << 32)
    epochs: int = Field(20, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    checkpoint_every: int | None = Field(None, ge=1)
    max_words: int | None = Field(None, ge=1)


def parse_options(model_config: type[ModelConfig], options: Mapping[str, Any]) -> tuple[TrainingConfig, ModelConfig]:
    """The configuration that a flat mapping of options describes; what it leaves out is as in the model's paper.

    Args:
        model_config: type. The configuration class of the model.
        options: mapping. Fields of `TrainingConfig` and of `model_config`, by name.

    Raises:
        UsageError: an option is unknown, or its value is of the wrong type or out of range.
    """
    known = [*TrainingConfig.model_fields, *model_config.model_fields]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(f"unknown option {unknown[0]!r}", mend=f"it could be one of {', '.join(known)}")
    return _part(TrainingConfig, {**model_config.training, **options}), _part(model_config, options)


def _part(config: type[Part], options: Mapping[str, Any]) -> Part:
    try:
        return config(**{name: value for name, value in options.items() if name in config.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(f"{name}: {first['msg']}, got {first['input']!r}") from None
