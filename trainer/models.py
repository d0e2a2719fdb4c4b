"""The captioners by name: how each is configured, built, and what features it wants."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import UsageError
from trainer.model_configs import ModelConfig, SoftAttentionConfig

if TYPE_CHECKING:
    from trainer.captioner import Captioner


@dataclass(frozen=True)
class ModelSpec:
    """A captioner that a run can be made of.

    Args:
        name: str. What the command line calls it.
        config: type. Its configuration class.
        model: str. `module.Class` within `trainer`, imported when it is built.
        spatial: bool. Whether it wants features [places, channels]; otherwise it wants pooled ones, [channels].
    """

    name: str
    config: type[ModelConfig]
    model: str
    spatial: bool

    def build(self, config: ModelConfig, vocabulary: int, shape: tuple[int, ...]) -> "Captioner":
        """The model with its variables made.

        Args:
            config: ModelConfig. Sizes, of this spec's class.
            vocabulary: int. Number of word ids.
            shape: tuple of int. Shape of one image's features.
        """
        module, name = self.model.split(".")
        model: Any = getattr(importlib.import_module(f"trainer.{module}"), name)(vocabulary, **config.model_dump())
        model.build({"features": (None, *shape), "tokens": (None, None), "image": (None,)})
        return model

    def check_shape(self, shape: tuple[int, ...], where: str) -> None:
        """UsageError where features of this shape are not what the model wants; `where` names their table."""
        if self.fits(shape):
            return
        wanted, pooling = ("spatial", "none") if self.spatial else ("pooled", "avg")
        raise UsageError(
            f"{self.name} wants {wanted} features, these have shape {list(shape)}",
            where=where,
            mend=f"make them with `capt prepare features --pooling {pooling}`",
        )

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether features of this shape are what the model wants."""
        return len(shape) == (2 if self.spatial else 1)


MODELS = {
    spec.name: spec
    for spec in (ModelSpec("soft_attention", SoftAttentionConfig, "soft_attention.SoftAttention", spatial=True),)
}


def model_spec(name: str) -> ModelSpec:
    """The captioner called `name`; UsageError naming the ones there are."""
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}", where="--model", mend=f"use one of {', '.join(MODELS)}")
    return MODELS[name]
