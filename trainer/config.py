"""What a run is set to: how it trains, and the sizes of its model. Typed, and unknown keys are refused by name."""

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError

from features.runtime.numerics import detect_native_precision
from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.options.extractor import Preprocess
from trainer.models.configs import ModelConfig, RecognizerConfig
from trainer.models.recognizer_profiles import profile_settings

Part = TypeVar("Part", bound=Settings)
OtherPart = TypeVar("OtherPart", bound=Settings)

_PRECISIONS = {"bfloat16": "mixed_bfloat16", "float32": "float32"}
_OF_PIXELS = ("extractor_", "extractor_lr_multiplier", "augment_")


class LoopConfig(Settings):
    """How a model is trained, whatever its task.

    Args:
        seed: int. Decides initial weights, order, dropout, augmentation, and whatever else is drawn.
        epochs: int. Passes over the train split, or over `steps_per_epoch` batches.
        steps_per_epoch: int or None. Batches an epoch, drawn with replacement; None for one pass over the split.
        batch_size: int. Captions, or images with a word each, a step.
        optimizer: str. `adam` (Kingma and Ba, 2015), `rmsprop` (Hinton, 2012) or plain `sgd`.
        learning_rate: float. Of the optimizer, where the schedule begins.
        lr_schedule: str. `constant`; `step`: times `lr_decay_rate` every `lr_decay_epochs`; `cosine`: down to 0 at the
            last epoch (Loshchilov and Hutter, 2017).
        lr_decay_rate: float. Factor of `step`.
        lr_decay_epochs: int. Epochs between two steps of `step`.
        warmup_steps: int. Steps over which the learning rate first rises from 0, in a straight line.
        weight_decay: float. Share of themselves, times the learning rate, that weights lose a step, biases and scales
            left out; with `adam` this is AdamW (Loshchilov and Hutter, 2019).
        global_clipnorm: float or None. Gradients whose norm over all weights is larger are scaled down to it.
        ema_momentum: float. What the running average of the weights keeps of itself a step; the average is what is
            validated and what answers. 0 for none.
        precision: str. `float32`, or the half in which the model computes while its weights stay float32; `auto` is
            `mixed_bfloat16` where the processor computes in it, `float32` elsewhere, see `settled`.
        early_stopping_patience: int or None. Epochs without a better one after which training ends early.
        devices: str. `one`, or `all`: batches are spread over all accelerators, each with a copy of the model.
        save_steps: int or None. Steps between checkpoints, besides the one after each epoch.
    """

    seed: int = Field(0, ge=0, lt=1 << 32)
    epochs: int = Field(20, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1)
    batch_size: int = Field(64, ge=1)
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    lr_schedule: Literal["constant", "step", "cosine"] = "constant"
    lr_decay_rate: float = Field(0.5, gt=0, le=1)
    lr_decay_epochs: int = Field(8, ge=1)
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    global_clipnorm: float | None = Field(None, gt=0)
    ema_momentum: float = Field(0.0, ge=0, lt=1)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    early_stopping_patience: int | None = Field(None, ge=1)
    devices: Literal["one", "all"] = "one"
    save_steps: int | None = Field(None, ge=1)

    def resolved(self) -> Self:
        """The same with nothing left to the machine: what a run is recorded with, and goes on with elsewhere."""
        if self.precision != "auto":
            return self
        return self.model_copy(update={"precision": _PRECISIONS[detect_native_precision()]})


class TrainingConfig(LoopConfig):
    """How a captioner is trained, whatever its model, beside what every run has by `LoopConfig`.

    Args:
        captions_per_image: str. `all` captions of an image in a pass, together, or `one` drawn at random.
        label_smoothing: float. Share of each target that is spread over all words that may be said.
        monitor: str. What makes an epoch the best: the least `val_loss`, or the most `val_cider_d`.
        num_sample_captions: int. Images of the validation split that are captioned after each epoch.
        max_new_tokens: int or None. Tokens at most in a caption made by the model, its end too; None for as many as the
            longest caption of the train split has.
        extractor: str or None. With a table of pixels: the network that the model has in it, as `--extractor` of `capt
            prepare features` names it; all that follows is for pixels alone.
        extractor_weights: str or None. As `--weights` there.
        extractor_layer: str or None. As `--layer` there.
        extractor_preprocess: str or None. As `--preprocess` there.
        extractor_lr_multiplier: float. Learning rate of the extractor, as a share of the others'; 0 leaves it as it is.
        augment_translation: float. Share of an image's side by which it is moved at most, its edges repeated.
        augment_zoom: float. An image is shown up to 1 + this times as large, or as small.
        augment_color_jitter: float. Share by which brightness, contrast and saturation are changed at most.
        augment_horizontal_flip: bool. Whether half the images are mirrored, whatever their captions say.
    """

    captions_per_image: Literal["all", "one"] = "all"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    monitor: Literal["val_loss", "val_cider_d"] = "val_loss"
    num_sample_captions: int = Field(3, ge=0)
    max_new_tokens: int | None = Field(None, ge=1)
    extractor: str | None = None
    extractor_weights: str | None = None
    extractor_layer: str | None = None
    extractor_preprocess: Preprocess | None = None
    extractor_lr_multiplier: float = Field(0.0, ge=0, le=1)
    augment_translation: float = Field(0.0, ge=0, le=0.5)
    augment_zoom: float = Field(0.0, ge=0, le=1)
    augment_color_jitter: float = Field(0.0, ge=0, lt=1)
    augment_horizontal_flip: bool = False


class RecognizerTraining(LoopConfig):
    """How a recognizer of words is trained, beside what every run has by `LoopConfig`.

    Args:
        num_validation_images: int or None. Images of the validation split that are read after each epoch, always the
            same ones; None for all.
        augment_translation: float. Share of an image's side by which it is moved at most, its edges repeated.
        augment_zoom: float. An image is shown up to 1 + this times as large, or as small.
        augment_color_jitter: float. Share by which brightness, contrast and saturation are changed at most.
        augment_channel_permutation: bool. Whether red, green and blue change places.
        augment_random_erasing: float. Share of an image's area that a bar of one colour covers at most.
    """

    num_validation_images: int | None = Field(None, ge=1)
    augment_translation: float = Field(0.0, ge=0, le=0.5)
    augment_zoom: float = Field(0.0, ge=0, le=1)
    augment_color_jitter: float = Field(0.0, ge=0, lt=1)
    augment_channel_permutation: bool = False
    augment_random_erasing: float = Field(0.0, ge=0, lt=1)


def parse_options(model_config: type[ModelConfig], options: Mapping[str, Any]) -> tuple[TrainingConfig, ModelConfig]:
    """The configuration that a flat mapping of options describes; what it leaves out is as in the model's paper.

    Args:
        model_config: type. The configuration class of the model.
        options: mapping. Fields of `TrainingConfig` and of `model_config`, by name.

    Raises:
        UsageError: an option is unknown, its value is of the wrong type or out of range, or it is for pixels alone and
            no extractor is named.
    """
    training, sizes = parse_parts(TrainingConfig, model_config, {**model_config.training, **options})
    _refuse_unused(training)
    return training, sizes


def parse_recognizer(profile: str, options: Mapping[str, Any]) -> tuple[RecognizerTraining, RecognizerConfig]:
    """The configuration of a recognizer of words; what the options leave out is as in the profile.

    Args:
        profile: str. A name of `trainer.models.recognizer_profiles`.
        options: mapping. Fields of `RecognizerTraining` and of `RecognizerConfig`, by name.

    Raises:
        UsageError: there is no such profile, an option is unknown, or its value is of the wrong type or out of range.
    """
    return parse_parts(RecognizerTraining, RecognizerConfig, {**profile_settings(profile), **options})


def parse_parts(training: type[Part], model: type[OtherPart], options: Mapping[str, Any]) -> tuple[Part, OtherPart]:
    """The two configurations that a flat mapping of options describes.

    Args:
        training: type. The one of training.
        model: type. The one of the model.
        options: mapping. Fields of either, by name.

    Raises:
        UsageError: an option is unknown, or its value is of the wrong type or out of range.
    """
    known = [*training.model_fields, *model.model_fields]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(f"unknown option {unknown[0]!r}", hint=f"it could be one of {', '.join(known)}")
    return _part(training, options), _part(model, options)


def _refuse_unused(training: TrainingConfig) -> None:
    if training.extractor is not None:
        return
    for name, field in TrainingConfig.model_fields.items():
        if name.startswith(_OF_PIXELS) and getattr(training, name) != field.default:
            raise UsageError(
                f"{name} is for a model that learns from pixels",
                hint="name its network with extractor, or leave it out",
            )


def _part(config: type[Part], options: Mapping[str, Any]) -> Part:
    try:
        return config(**{name: value for name, value in options.items() if name in config.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(f"{name}: {first['msg']}, got {first['input']!r}") from None
