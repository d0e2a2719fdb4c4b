"""The sizes of each captioner, and how its paper trains it; typed, and free of Keras so that they are quick to show."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field

from schemas.recipes import Frozen


class ModelConfig(Frozen):
    """The sizes of a model; every field is an argument of the model's class.

    Attributes:
        training: mapping. Fields of `trainer.config.TrainingConfig` that the model's paper sets otherwise.
    """

    training: ClassVar[Mapping[str, Any]] = MappingProxyType({})


class SoftAttentionConfig(ModelConfig):
    """Sizes of `trainer.soft_attention.SoftAttention`, described there."""

    embedding: int = Field(256, ge=1)
    units: int = Field(512, ge=1)
    attention: int = Field(512, ge=1)
    projection: int = Field(256, ge=1)
    output: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
