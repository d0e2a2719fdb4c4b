"""Registers the captioners by name: their config, their class and the features that they read.

To add a captioner, declare its config in `configs.py`, write its file, add one line to `MODELS`, and add its name to
`schemas.options.training.CaptionerName`.
"""

import importlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.errors import UsageError
from schemas.options.training import RECOGNIZER
from trainer.models import configs
from trainer.models.custom_models import CustomModel, is_custom, locate_errors, read_custom_model

if TYPE_CHECKING:
    from trainer.models.captioner import Captioner, FeatureNormalization
    from trainer.models.recognizer import Recognizer


@dataclass(frozen=True)
class ModelSpec:
    """A registered captioner.

    Args:
        name: Name on the command line, or `FILE.py:Class`.
        config: Class of the config.
        model: `module.Class` in `trainer.models`; imported by `build`, because Keras takes seconds to import.
            Alternatively, a class in a user's file.
        spatial: Whether it reads spatial features [locations, channels]; otherwise it reads pooled ones, [channels].
    """

    name: str
    config: type[configs.ModelConfig]
    model: str | CustomModel
    spatial: bool

    def build(
        self,
        config: configs.ModelConfig,
        vocabulary: int,
        shape: tuple[int, ...],
        feature_normalization: "FeatureNormalization | None" = None,
    ) -> "Captioner":
        """Returns the model with its variables created; `shape` is that of the features of one image."""
        with locate_errors(self.name) if self.source else nullcontext():
            model: Captioner = self._load_class()(vocabulary, config, feature_normalization)
            model.build({"features": (None, *shape), "tokens": (None, None), "image": (None,)})
            return model

    @property
    def source(self) -> str | None:
        """SHA-256 of the user's file; None for capt's own models."""
        return self.model.sha256 if isinstance(self.model, CustomModel) else None

    def _load_class(self) -> Any:
        if isinstance(self.model, CustomModel):
            return self.model.load()
        module, name = self.model.split(".")
        return getattr(importlib.import_module(f"trainer.models.{module}"), name)

    def check_shape(self, shape: tuple[int, ...], location: str) -> None:
        """Raises UsageError if the model cannot read features of this shape; `location` names their table."""
        if self.fits(shape):
            return
        required, pooling = ("spatial", "none") if self.spatial else ("pooled", "avg")
        found, extractor, alternative = "have shape", "", ""
        if len(shape) == 3:
            found, extractor = "are pixels", "--extractor inception_v3 "
            alternative = ", or set extractor in --config"
        message = f"{self.name} requires {required} features, but these {found} {list(shape)}"
        hint = f"Run `capt prepare features … {extractor}--pooling {pooling}`{alternative}."
        raise UsageError(message, location=location, hint=hint)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Returns whether the model reads features of this shape."""
        return len(shape) == (2 if self.spatial else 1)


@dataclass(frozen=True)
class PixelInput:
    """The input of a model that reads images as pixels, with the message and the hint for other features."""

    reason: str = "with extractor, a model learns from pixels"
    hint: str = "Leave extractor out, or run `capt prepare features --extractor pixels`."

    def check_shape(self, shape: tuple[int, ...], location: str) -> None:
        """Raises UsageError if features of this shape are not pixels; `location` names their table."""
        if not self.fits(shape):
            message = f"{self.reason}, but these features have shape {list(shape)}"
            raise UsageError(message, location=location, hint=self.hint)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Returns whether features of this shape are pixels."""
        return len(shape) == 3


@dataclass(frozen=True)
class AnyInput:
    """The input of a model that is not capt's own: features of every shape."""

    def check_shape(self, shape: tuple[int, ...], location: str) -> None:
        """Accepts every shape."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Returns True."""
        return True


RECOGNIZER_INPUT = PixelInput("a recognizer reads pixels", "Run `capt prepare captcha`.")

MODELS = {
    spec.name: spec
    for spec in (
        ModelSpec("soft_attention", configs.SoftAttentionConfig, "soft_attention.SoftAttention", spatial=True),
        ModelSpec("hard_attention", configs.HardAttentionConfig, "hard_attention.HardAttention", spatial=True),
        ModelSpec("transformer", configs.TransformerConfig, "transformer.Transformer", spatial=True),
        ModelSpec("nic", configs.NicConfig, "nic.Nic", spatial=False),
        ModelSpec("m_rnn", configs.MRnnConfig, "m_rnn.MRnn", spatial=False),
        ModelSpec("init_inject", configs.InitInjectConfig, "init_inject.InitInject", spatial=False),
        ModelSpec("par_inject", configs.ParInjectConfig, "par_inject.ParInject", spatial=False),
        ModelSpec("merge", configs.MergeConfig, "merge.Merge", spatial=False),
    )
}


def model_spec(name: str, source: str | None = None) -> ModelSpec:
    """Returns a captioner; raises UsageError if it does not exist.

    Args:
        name: Registered name, or `FILE.py:Class`.
        source: SHA-256 of a file that was read before; None to read FILE.py.
    """
    if is_custom(name):
        custom = CustomModel(name, source) if source else read_custom_model(name)
        if not custom.is_captioner:
            message, hint = f"{custom.name} is not a captioner", "Use `capt train captcha`."
            raise UsageError(message, location="--model", hint=hint)
        model = custom.load()
        return ModelSpec(custom.name, model.config_class, custom, model.spatial)
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}", location="--model", hint=f"Use one of {', '.join(MODELS)}.")
    return MODELS[name]


@dataclass(frozen=True)
class RecognizerSpec:
    """A recognizer: capt's own, or one in a user's file."""

    name: str
    config: type[configs.RecognizerConfig]
    model: CustomModel | None = None

    @property
    def source(self) -> str | None:
        """SHA-256 of the user's file; None for capt's own model."""
        return self.model.sha256 if self.model else None

    def build(self, config: configs.RecognizerConfig, shape: tuple[int, ...]) -> "Recognizer":
        """Returns the model with its variables created; `shape` is that of one image."""
        from trainer.models.recognizer import Recognizer

        with locate_errors(self.name) if self.source else nullcontext():
            model: Recognizer = (self.model.load() if self.model else Recognizer)(config)
            model.build((None, *shape))
            return model


def recognizer_spec(name: str = RECOGNIZER, source: str | None = None) -> RecognizerSpec:
    """Returns a recognizer; arguments as for `model_spec`."""
    if name == RECOGNIZER:
        return RecognizerSpec(name, configs.RecognizerConfig)
    if not is_custom(name):
        hint = f"Use {RECOGNIZER} or FILE.py:Class."
        raise UsageError(f"unknown model {name!r}", location="--model", hint=hint)
    custom = CustomModel(name, source) if source else read_custom_model(name)
    if custom.is_captioner:
        message, hint = f"{custom.name} is not a recognizer", "Use `capt train captioner`."
        raise UsageError(message, location="--model", hint=hint)
    return RecognizerSpec(custom.name, custom.load().config_class, custom)
