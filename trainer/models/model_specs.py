"""The captioners by name: how each is configured, built, and what features it wants."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import UsageError
from trainer.models.configs import (
    HardAttentionConfig,
    InitInjectConfig,
    MergeConfig,
    ModelConfig,
    MRnnConfig,
    NicConfig,
    ParInjectConfig,
    SoftAttentionConfig,
    TransformerConfig,
)

if TYPE_CHECKING:
    from trainer.models.captioner import Captioner, FeatureNormalization


@dataclass(frozen=True)
class ModelSpec:
    """A captioner that a run can be made of.

    Args:
        name: str. What the command line calls it.
        config: type. Its configuration class.
        model: str. `module.Class` within `trainer.models`, imported when it is built.
        spatial: bool. Whether it wants features [places, channels]; otherwise it wants pooled ones, [channels].
    """

    name: str
    config: type[ModelConfig]
    model: str
    spatial: bool

    def build(
        self,
        config: ModelConfig,
        vocabulary: int,
        shape: tuple[int, ...],
        feature_scale: "FeatureNormalization | None" = None,
    ) -> "Captioner":
        """The model with its variables made.

        Args:
            config: ModelConfig. Sizes, of this spec's class.
            vocabulary: int. Number of word ids.
            shape: tuple of int. Shape of one image's features.
            feature_scale: FeatureNormalization or None. As `trainer.models.captioner.Captioner` takes it.
        """
        module, name = self.model.split(".")
        kind = getattr(importlib.import_module(f"trainer.models.{module}"), name)
        model: Any = kind(vocabulary, **config.model_dump(), feature_scale=feature_scale)
        model.build({"features": (None, *shape), "tokens": (None, None), "image": (None,)})
        return model

    def check_shape(self, shape: tuple[int, ...], location: str) -> None:
        """UsageError where features of this shape are not what the model wants; `where` names their table."""
        if self.fits(shape):
            return
        wanted, pooling = ("spatial", "none") if self.spatial else ("pooled", "avg")
        is_pixels = len(shape) == 3
        network = "--extractor inception_v3 " if is_pixels else ""
        otherwise = ", or name a network with extractor in --config" if is_pixels else ""
        raise UsageError(
            f"{self.name} wants {wanted} features, these {'are pixels' if is_pixels else 'have shape'} {list(shape)}",
            location=location,
            hint=f"make them with `capt prepare features {network}--pooling {pooling}`{otherwise}",
        )

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether features of this shape are what the model wants."""
        return len(shape) == (2 if self.spatial else 1)


@dataclass(frozen=True)
class PixelInput:
    """What a run is made of whose model reads images as pixels.

    Args:
        why: str. Why it does.
        hint: str. What to do where features are no pixels.
    """

    why: str = "with extractor a model learns from pixels"
    hint: str = "leave extractor out, or make pixels with `capt prepare features --extractor pixels`"

    def check_shape(self, shape: tuple[int, ...], location: str) -> None:
        """UsageError where features of this shape are no pixels; `location` names their table."""
        if not self.fits(shape):
            raise UsageError(
                f"{self.why}, these are features of shape {list(shape)}", location=location, hint=self.hint
            )

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether features of this shape are pixels."""
        return len(shape) == 3


RECOGNIZER_INPUT = PixelInput("a recognizer of words reads pixels", "make them with `capt prepare captcha`")

MODELS = {
    spec.name: spec
    for spec in (
        ModelSpec("soft_attention", SoftAttentionConfig, "soft_attention.SoftAttention", spatial=True),
        ModelSpec("hard_attention", HardAttentionConfig, "hard_attention.HardAttention", spatial=True),
        ModelSpec("transformer", TransformerConfig, "transformer.Transformer", spatial=True),
        ModelSpec("nic", NicConfig, "nic.Nic", spatial=False),
        ModelSpec("m_rnn", MRnnConfig, "m_rnn.MRnn", spatial=False),
        ModelSpec("init_inject", InitInjectConfig, "init_inject.InitInject", spatial=False),
        ModelSpec("par_inject", ParInjectConfig, "par_inject.ParInject", spatial=False),
        ModelSpec("merge", MergeConfig, "merge.Merge", spatial=False),
    )
}


def model_spec(name: str) -> ModelSpec:
    """The captioner called `name`; UsageError naming the ones there are."""
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}", location="--model", hint=f"use one of {', '.join(MODELS)}")
    return MODELS[name]
