"""Declares the training hyperparameters of each task, and parses them together with the hyperparameters of a model."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from features.runtime.numerics import detect_native_precision
from schemas.choices import CaptionsPerImage, Objective
from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.temperature import check_temperature
from trainer.models.configs import BackboneConfig, ModelConfig, RecognizerConfig
from trainer.profiles import PROFILES

AnyConfig = TypeVar("AnyConfig", bound="LoopConfig", covariant=True)
TrainingT = TypeVar("TrainingT", bound=Settings)
ModelT = TypeVar("ModelT", bound=Settings)


def _split_weights(value: Any) -> Any:
    """Accepts comma-separated numbers, and a single number as a list of one."""
    if isinstance(value, str):
        return tuple(value.split(","))
    return value if isinstance(value, (list, tuple)) else (value,)


DatasetWeights = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], BeforeValidator(_split_weights)
]
# Strict: a boolean is not a number.
_Temperature = Annotated[float, Strict(), AfterValidator(check_temperature)]

_POLICIES = {"bfloat16": "mixed_bfloat16", "float32": "float32"}
_PIXEL_PREFIXES = ("extractor_", "augment_")

# Defaults of captioner training by objective, which take precedence over those of the model. The batches of a second
# stage are small, because its gain depends on the number of steps, and a step has several captions per image.
OBJECTIVE_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "cross_entropy": {},
        "cider_d": {"batch_size": 16, "optimizer": "adam", "learning_rate": 2e-4, "lr_schedule": "constant"}
        | {"global_clipnorm": 1.0, "monitor": "val_cider_d"},
    }
)
# Hyperparameters that an objective does not use.
_UNUSED = {
    "cross_entropy": ("samples_per_image", "policy_temperature", "reward_baseline"),
    "cider_d": ("captions_per_image", "label_smoothing", "padded_loss"),
}


class LoopConfig(Settings):
    """Training hyperparameters of every task.

    Args:
        seed: Seed of initial weights, order of the batches, dropout, augmentation and all other random values.
        epochs: Number of epochs: passes over the train split, or over `steps_per_epoch` batches. For recognizers, null
            is the number of the profile for this number of train images.
        steps_per_epoch: Number of batches per epoch, sampled with replacement; null for one pass over the train split.
        batch_size: Number of captions or labels per step; with `objective: cider_d`, the number of images per step.
        optimizer: `adam` (Kingma and Ba, 2015), `rmsprop` (Hinton, 2012) or plain `sgd`.
        learning_rate: Initial learning rate.
        lr_schedule: `constant`; `step`: multiplied by `lr_decay_rate` every `lr_decay_epochs`; `cosine`: decays to 0 at
            the last epoch (Loshchilov and Hutter, 2017).
        lr_decay_rate: Factor of the schedule `step`.
        lr_decay_epochs: Number of epochs between two steps of the schedule `step`.
        warmup_steps: Number of steps in which the learning rate rises linearly from 0.
        weight_decay: Decoupled weight decay, multiplied by the learning rate at each step; excludes biases and scales.
            With `adam` this is AdamW (Loshchilov and Hutter, 2019).
        global_clipnorm: Maximum norm of the gradient over all weights; null for no clipping.
        ema_momentum: Momentum of the exponential moving average (EMA) of the weights, which is then used for validation
            and inference; 0 for no EMA.
        precision: `float32`, or a mixed precision: the model computes in 16 bits and its weights are float32. `auto` is
            `mixed_bfloat16` if the CPU supports it, otherwise `float32`.
        early_stopping_patience: Number of epochs without improvement after which training stops; null for no limit.
        devices: `one`, or `all`: every accelerator has a copy of the model and computes a part of each batch.
        save_steps: Number of steps between checkpoints, in addition to one per epoch; null for none.
        validation_split: Split to validate on after each epoch: `val` (test, if val has no usable records) or `test`.
            Scores on test are biased upward if the best epoch is selected on test.
        keep_epochs: Number of last epochs whose weights are kept for `--epoch`, in addition to the best epoch and the
            last checkpoint.
        plot_from_zero: Whether the axes of loss and accuracy in `loss.png` begin at 0.
    """

    # A run with other values of these hyperparameters has the same weights and scores.
    without_effect: ClassVar[frozenset[str]] = frozenset({"keep_epochs", "plot_from_zero"})
    # A run with other values of these has the same weights after the same number of steps.
    without_effect_on_weights: ClassVar[frozenset[str]] = without_effect

    seed: int = Field(0, ge=0, lt=1 << 32)
    epochs: int | None = Field(20, ge=1)
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
    # A default that is not written leaves the identity of older runs as it is.
    validation_split: Literal["val", "test"] = Field("val", exclude_if=lambda split: split == "val")
    keep_epochs: int = Field(0, ge=0)
    plot_from_zero: bool = False

    @property
    def num_epochs(self) -> int:
        """The number of epochs; the run of a recognizer sets it from its train images."""
        if self.epochs is None:
            raise ValueError("epochs is not set")
        return self.epochs

    def resolved(self) -> Self:
        """Returns a copy in which `precision: auto` is resolved for this machine, so that it can resume on others."""
        if self.precision != "auto":
            return self
        return self.model_copy(update={"precision": _POLICIES[detect_native_precision()]})


class CaptionerTraining(LoopConfig, BackboneConfig):
    """Training hyperparameters of captioners, in addition to `LoopConfig`.

    Args:
        objective: `cross_entropy`, or `cider_d`: self-critical sequence training (Rennie et al., 2017,
            arXiv:1612.00563), a second stage after `--warm-start-from`, which raises the CIDEr-D of sampled captions.
            Its defaults are `monitor: val_cider_d`, `batch_size: 16`, `optimizer: adam`, `learning_rate: 2e-4`,
            `lr_schedule: constant` and `global_clipnorm: 1`.
        samples_per_image: Number of captions that `objective: cider_d` samples per image and step.
        policy_temperature: Softmax temperature of the distribution from which `objective: cider_d` samples captions,
            and whose log-probability is its loss.
        reward_baseline: Reward to which `objective: cider_d` compares that of a sampled caption: the `mean` of the
            image's other samples (Luo, 2020, arXiv:2003.09971), or that of its `greedy` caption (Rennie et al., 2017).
        captions_per_image: `all`: every caption, those of an image adjacent; `one`: a random caption per image and
            epoch.
        label_smoothing: Fraction of each target that is spread evenly over all tokens that may be generated.
        monitor: Metric that selects the best epoch: the lowest `val_loss`, or the highest `val_cider_d`.
        padded_loss: Whether `padded_loss` is also computed: the loss per position of captions that are padded to the
            longest training caption, start and end tokens included, as some notebooks print it.
        num_validation_images: Number of validation images for the loss and CIDEr-D after each epoch; null for all.
        num_sample_captions: Number of validation images that are captioned after each epoch.
        sample_images: Image files that are also captioned after each epoch.
        sample_temperatures: Softmax temperatures of the captions after each epoch, as `--temperature` of `capt
            caption`: one caption per image and temperature; 0 is greedy decoding.
        max_new_tokens: Maximum number of generated tokens per caption, including the end token; null for the length of
            the longest training caption plus one for the end token.
        augment_translation: Maximum translation as a fraction of the image's side. Edge pixels are repeated.
            Augmentation requires an extractor.
        augment_zoom: Maximum zoom: an image is enlarged or reduced by a factor of up to 1 + this value.
        augment_color_jitter: Maximum relative change of brightness, contrast and saturation.
        augment_horizontal_flip: Whether half of the images are flipped, regardless of their captions.
    """

    without_effect = LoopConfig.without_effect | {"padded_loss", "sample_images", "sample_temperatures"}
    without_effect_on_weights = without_effect | {"num_validation_images"}

    epochs: int = Field(20, ge=1)
    # See `validation_split`.
    objective: Objective = Field("cross_entropy", exclude_if=lambda objective: objective == "cross_entropy")
    samples_per_image: int = Field(5, ge=1, exclude_if=lambda count: count == 5)
    policy_temperature: _Temperature = Field(0.5, gt=0, exclude_if=lambda temperature: temperature == 0.5)
    reward_baseline: Literal["mean", "greedy"] = Field("mean", exclude_if=lambda baseline: baseline == "mean")
    captions_per_image: CaptionsPerImage = "all"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    monitor: Literal["val_loss", "val_cider_d"] = "val_loss"
    padded_loss: bool = False
    num_validation_images: int | None = Field(None, ge=1, exclude_if=lambda count: count is None)
    num_sample_captions: int = Field(3, ge=0)
    sample_images: tuple[str, ...] = ()
    sample_temperatures: tuple[_Temperature, ...] = Field((0.0,), min_length=1)
    max_new_tokens: int | None = Field(None, ge=1)
    augment_translation: float = Field(0.0, ge=0, le=0.5)
    augment_zoom: float = Field(0.0, ge=0, le=1)
    augment_color_jitter: float = Field(0.0, ge=0, lt=1)
    augment_horizontal_flip: bool = False

    @field_validator("sample_images", "sample_temperatures", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        """Accepts a single value as a list of one, and paths as text."""
        if value is None or isinstance(value, Mapping):
            raise PydanticCustomError("list", "Input should be a list")
        values = value if isinstance(value, (list, tuple)) else [value]
        return tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in values)


class RecognizerTraining(LoopConfig):
    """Training hyperparameters of the recognizer, in addition to `LoopConfig`.

    Args:
        dataset_weights: Fraction of each dataset in an epoch, in the order of `--dataset`, as numbers above 0 whose
            ratio counts. Images of a dataset are repeated or left out accordingly; null for every image once.
        num_validation_images: Number of validation images that are recognized after each epoch; null for all.
        augment_translation: Maximum translation as a fraction of the image's side. Edge pixels are repeated.
        augment_zoom: Maximum zoom: an image is enlarged or reduced by a factor of up to 1 + this value.
        augment_color_jitter: Maximum relative change of brightness, contrast and saturation.
        augment_channel_permutation: Whether red, green and blue are permuted.
        augment_random_erasing: Maximum fraction of the image that a bar of one color covers.
    """

    epochs: int | None = Field(None, ge=1)
    dataset_weights: DatasetWeights | None = Field(None, exclude_if=lambda weights: weights is None)
    num_validation_images: int | None = Field(None, ge=1)
    augment_translation: float = Field(0.0, ge=0, le=0.5)
    augment_zoom: float = Field(0.0, ge=0, le=1)
    augment_color_jitter: float = Field(0.0, ge=0, lt=1)
    augment_channel_permutation: bool = False
    augment_random_erasing: float = Field(0.0, ge=0, lt=1)


@dataclass(frozen=True)
class Hyperparameters(Generic[AnyConfig]):
    """The hyperparameters of a run.

    Args:
        choice: The option that sets the defaults, such as `{"model": "merge"}`.
        model: Name of the model.
        training: Hyperparameters of training.
        architecture: Hyperparameters of the model.
        source: SHA-256 of the file of a user's own model.
    """

    choice: dict[str, str]
    model: str
    training: AnyConfig
    architecture: ModelConfig
    source: str | None = None

    def to_dict(self, *, resolve: bool = True) -> dict[str, Any]:
        """Returns all by name, for a user to read or, with `resolve`, to identify a run.

        `resolve` replaces values that depend on the machine, such as `precision: auto`. It omits the hyperparameters
        that have no effect on weights and scores, and those that identify a run only if they are set.
        """
        if not resolve:
            return {**self.choice, **_dump_all(self.architecture), **_dump_all(self.training)}
        training = self.training.resolved().model_dump(mode="json", exclude=set(self.training.without_effect))
        return {**self.choice, **self.architecture.model_dump(mode="json"), **training}


def _dump_all(config: Settings) -> dict[str, Any]:
    """Returns all values by name, also those that are not written."""
    written = config.model_dump(mode="json")
    return {name: written.get(name, getattr(config, name)) for name in type(config).model_fields}


def parse_options(model_config: type[ModelConfig], options: Mapping[str, Any]) -> tuple[CaptionerTraining, ModelConfig]:
    """Parses the hyperparameters of a captioner; the defaults are those of the model's config.

    Raises:
        UsageError: An option is unknown or invalid, requires an extractor, or has no effect with the objective.
    """
    # An unknown objective is an error of `parse_parts`.
    objective_defaults = OBJECTIVE_DEFAULTS.get(str(options.get("objective", "cross_entropy")), {})
    defaults = {**model_config.training_defaults, **objective_defaults}
    training, model = parse_parts(CaptionerTraining, model_config, {**defaults, **options})
    _check_objective(training, defaults)
    if training.extractor is None:
        for name, field in CaptionerTraining.model_fields.items():
            if name.startswith(_PIXEL_PREFIXES) and getattr(training, name) != field.default:
                hint = "Set the hyperparameter extractor, or omit this one."
                raise UsageError(f"{name} requires a model that learns from pixels", hint=hint)
    return training, model


def _check_objective(training: CaptionerTraining, defaults: Mapping[str, Any]) -> None:
    """Raises UsageError if a hyperparameter differs from its defaults, but has no effect with the objective."""
    for name in _UNUSED[training.objective]:
        default = CaptionerTraining.model_fields[name].default
        if getattr(training, name) not in (default, defaults.get(name, default)):
            raise UsageError(f"{name} has no effect with objective: {training.objective}", hint="Omit it.")
    if training.objective == "cider_d" and training.samples_per_image == 1 and training.reward_baseline == "mean":
        hint = "Use at least 2 samples, or reward_baseline: greedy."
        message = "the mean of an image's other samples requires a second sample"
        raise UsageError(message, location="samples_per_image: 1", hint=hint)


def parse_recognizer(
    profile: str, options: Mapping[str, Any], model_config: type[RecognizerConfig] = RecognizerConfig
) -> tuple[RecognizerTraining, RecognizerConfig]:
    """Parses the hyperparameters of a recognizer; the defaults are the values of the profile.

    Raises:
        UsageError: The profile does not exist, or an option is unknown or invalid.
    """
    if profile not in PROFILES:
        hint = f"Use one of {', '.join(PROFILES)}."
        raise UsageError(f"unknown profile {profile!r}", location="--profile", hint=hint)
    return parse_parts(RecognizerTraining, model_config, {**PROFILES[profile].training, **options})


def parse_parts(training: type[TrainingT], model: type[ModelT], options: Mapping[str, Any]) -> tuple[TrainingT, ModelT]:
    """Splits options into hyperparameters of training and model; raises UsageError if one is unknown or invalid."""
    if both := [name for name in model.model_fields if name in training.model_fields]:
        hint = "Rename the hyperparameter of the model."
        raise UsageError(f"{both[0]} is a hyperparameter of training", location=model.__name__, hint=hint)
    known = [*training.model_fields, *model.model_fields]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(f"unknown option {unknown[0]!r}", hint=f"Use one of {', '.join(known)}.")
    return _parse(training, options), _parse(model, options)


def _parse(config: type[TrainingT], options: Mapping[str, Any]) -> TrainingT:
    try:
        return config(**{name: value for name, value in options.items() if name in config.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{name}: {problem}, got {first['input']!r}") from None
