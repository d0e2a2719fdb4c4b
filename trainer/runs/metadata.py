"""Defines run.json: the model, hyperparameters and data of a run."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from features.store import Store
from schemas.errors import CorruptFileError, StoreError
from schemas.frozen import Frozen
from schemas.manifests import LabelFormat, Sha256
from schemas.options.training import RECOGNIZER
from schemas.strict_json import parse_json
from schemas.table_config import CaptionTableConfig, FeatureTableConfig
from trainer.config import CaptionerTraining, LoopConfig, RecognizerTraining
from trainer.data.table_selection import TrainingTables
from trainer.models.configs import ModelConfig, RecognizerConfig
from trainer.models.custom_models import read_copy
from trainer.models.model_specs import model_spec, recognizer_spec
from trainer.task_registry import TASKS, find_task

if TYPE_CHECKING:
    from features.runtime.keras_settings import keras
    from trainer.models.captioner import Captioner
    from trainer.models.recognizer import Recognizer

METADATA = "run.json"
EXTRACTOR = "extractor.json"

# These hyperparameters may change when a run resumes: they determine the number of epochs, the checkpoints, and the
# log messages. The location of an extractor may change, too, because the run identifies it by its features. So may the
# format of the label file, because it does not change the labels, and the calibration, which follows the last epoch.
_LENGTH = ("epochs", "early_stopping_patience")
_OUTPUT = ("save_steps", "keep_epochs", "plot_from_zero", "padded_loss", "num_validation_images")
_SAMPLES = ("num_sample_captions", "sample_images", "sample_temperatures")
_EXTRACTOR_LOCATION = ("extractor", "extractor_weights", "extractor_layer", "extractor_preprocess")
_TRAINING = {*_LENGTH, *_OUTPUT, *_SAMPLES, *_EXTRACTOR_LOCATION}
_MAY_CHANGE: Any = {"training": _TRAINING, "libraries": True, "label_format": True, "calibration": True}
_DESCRIPTIONS = {
    "train_digest": "digest of the train split",
    "validation_digest": "digest of the validation split",
    "source": "SHA-256 of the model's file",
}


class FeatureOrigin(Frozen):
    """The feature table of a run; `network` is the SHA-256 of its extractor, None for imported features."""

    fingerprint: Sha256
    table_config: FeatureTableConfig
    shape: tuple[int, ...]
    network: Sha256 | None


class ExtractorOrigin(Frozen):
    """The extractor inside a model that reads pixels: the config and shape of its features."""

    table_config: FeatureTableConfig
    shape: tuple[int, ...]


class CaptionOrigin(Frozen):
    """A caption table of a run."""

    fingerprint: Sha256
    table_config: CaptionTableConfig


class Calibration(Frozen):
    """The temperature of a recognizer's logits, fitted on validation images with the weights of one checkpoint.

    The expected calibration errors (ECE) are those of greedy labels and of their characters on the same images, with
    this temperature and with 1. They are None if there were too few images to fit the temperature, which is then 1.
    """

    checkpoint: str
    images: int = Field(ge=0)
    temperature: float = Field(default=1.0, gt=0)
    ece: float | None = None
    ece_uncalibrated: float | None = None
    character_ece: float | None = None
    character_ece_uncalibrated: float | None = None


class RunMetadata(Frozen):
    """The metadata that runs of every task have."""

    version: Literal[1] = 1
    task: str
    model: str
    architecture: dict[str, Any]
    training: LoopConfig
    datasets: tuple[str, ...]
    features: FeatureOrigin
    caption_tables: tuple[CaptionOrigin, ...] = ()  # one per dataset; empty for tasks without captions
    train_digest: Sha256
    validation_digest: Sha256 | None
    validation_split: str | None
    libraries: dict[str, str]  # versions when the run started
    warm_start: Sha256 | None = None  # identity of the run that provides the initial weights
    source: Sha256 | None = None  # of the file of a user's own model

    @model_serializer(mode="wrap")
    def _serialize(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits `source` for capt's own models, so that their identity has no such key."""
        values: dict[str, Any] = serialize(self)
        return values if self.source else {name: value for name, value in values.items() if name != "source"}

    @property
    def config(self) -> ModelConfig:
        """The hyperparameters of the model, typed."""
        raise NotImplementedError

    @property
    def default_config(self) -> ModelConfig:
        """The default hyperparameters of the model, with those that follow from the data.

        Raises:
            ValidationError: A model of one's own has hyperparameters without a default.
        """
        return type(self.config)()

    @property
    def target_counts(self) -> dict[str, int]:
        """The number of distinct targets, by a title for reports."""
        return {}

    def resume(self, earlier: Self) -> Self:
        """Returns the metadata of a resumed run, with what training added to the `earlier` metadata of the run."""
        return self

    def build(self, root: Path) -> "keras.Model":
        """Builds the model with initial weights; `root` is the run directory."""
        raise NotImplementedError

    def open_tables(self, store: Store) -> TrainingTables:
        """Opens the tables that the run was trained on, in their current state; StoreError if one is missing."""
        return TrainingTables(
            datasets=tuple(store.dataset(name) for name in self.datasets),
            features=store.feature_table(self.features.fingerprint),
            caption_tables=tuple(store.caption_table(origin.fingerprint) for origin in self.caption_tables),
        )


class CaptionerMetadata(RunMetadata):
    """The metadata of a captioner; it has an `extractor` inside the model if `features` are pixels."""

    task: Literal["captioner"] = "captioner"
    training: CaptionerTraining
    vocab_size: int = Field(ge=4)
    max_new_tokens: int = Field(ge=1)  # per caption; the end token counts
    extractor: ExtractorOrigin | None = None

    @property
    def config(self) -> ModelConfig:
        return model_spec(self.model, self.source).config(**self.architecture)

    @property
    def target_counts(self) -> dict[str, int]:
        return {"vocabulary size": self.vocab_size}

    def build(self, root: Path) -> "Captioner":
        spec = model_spec(self.model, self.source)
        if self.extractor is None:
            return spec.build(self.config, self.vocab_size, self.features.shape)
        from trainer.models.backbone import load_backbone

        layers = load_backbone(
            root / EXTRACTOR, self.extractor.table_config, trainable_extractor=self.training.extractor_lr_multiplier > 0
        )
        return spec.build(self.config, self.vocab_size, self.extractor.shape, layers)


class RecognizerMetadata(RunMetadata):
    """The metadata of a CAPTCHA recognizer; `words.txt` lists the distinct labels of the train split.

    `num_images` is the number of train images. `folded_datasets` are the datasets that ignore case. `label_format` is
    that of the label file; None for a space and a line feed. `calibration` is None before the last epoch.
    """

    task: Literal["captcha"] = "captcha"
    model: str = RECOGNIZER
    training: RecognizerTraining
    num_images: int = Field(ge=1)
    num_labels: int = Field(ge=1)
    folded_datasets: tuple[str, ...] = Field(default=(), exclude_if=lambda datasets: not datasets)
    label_format: LabelFormat | None = Field(default=None, exclude_if=lambda label_format: label_format is None)
    calibration: Calibration | None = Field(default=None, exclude_if=lambda calibration: calibration is None)

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.source is None and self.model != RECOGNIZER:
            raise ValueError(f"there is no model {self.model!r}")
        return self

    def folds_case(self, dataset: str) -> bool:
        """Returns whether labels for the run ignore case: those of its datasets that do, and of others if all do."""
        return dataset in self.folded_datasets or set(self.datasets) <= set(self.folded_datasets)

    @property
    def config(self) -> RecognizerConfig:
        return recognizer_spec(self.model, self.source).config(**self.architecture)

    @property
    def default_config(self) -> RecognizerConfig:
        config = self.config
        return type(config)(charset=config.charset, max_label_length=config.max_label_length)

    @property
    def target_counts(self) -> dict[str, int]:
        return {"distinct labels": self.num_labels, "characters": len(self.config.characters.characters)}

    def resume(self, earlier: Self) -> Self:
        return self.model_copy(update={"calibration": earlier.calibration})

    def build(self, root: Path) -> "Recognizer":
        return recognizer_spec(self.model, self.source).build(self.config, self.features.shape)


class _TaskName(Frozen, extra="ignore"):
    """The key of run.json that determines how the other keys are parsed."""

    task: str = ""


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that training depends on."""
    return {name: importlib.metadata.version(name) for name in ("keras", "numpy", "tensorflow")}


def read_metadata(root: Path) -> RunMetadata:
    """Reads run.json; StoreError without one that this version of capt can read, CorruptFileError if not JSON."""
    path = root / METADATA
    try:
        data = path.read_bytes()
        parse_json(data)
        task = _TaskName.model_validate_json(data).task
        if task not in TASKS:
            raise StoreError(f"this version of capt does not have the task {task!r}", location=str(path))
        metadata: RunMetadata = find_task(task).metadata.model_validate_json(data)
        if metadata.source:
            read_copy(root, metadata.model, metadata.source)
        return metadata
    except (FileNotFoundError, NotADirectoryError):
        hint = "Train one with `capt train captioner` or `capt train captcha`."
        raise StoreError("the directory does not contain a run", location=str(root), hint=hint) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = f"this version of capt cannot read the run: {key}: {first['msg']}"
        raise StoreError(message, location=str(path)) from None
    except ValueError as error:
        raise CorruptFileError(f"the file is corrupt: {error}", location=str(path)) from None


def check_same_run(root: Path, new: RunMetadata) -> None:
    """Raises StoreError with the first difference if the directory contains another run than `new`."""
    for name, expected, got in _find_differences(_identify(read_metadata(root)), _identify(new)):
        raise StoreError(
            f"the directory contains another run: {_DESCRIPTIONS.get(name, name)}: expected {expected}, got {got}",
            location=str(root),
            hint="Train with the hyperparameters and data of that run, or choose another --run-dir.",
        )


def _identify(metadata: RunMetadata) -> dict[str, Any]:
    identity = metadata.model_dump(mode="json", exclude=_MAY_CHANGE)
    # Hyperparameters that are newer than the run have their defaults.
    identity["architecture"] = metadata.config.model_dump(mode="json")
    if metadata.training.lr_schedule == "cosine":
        # The learning rate depends on the number of steps.
        identity["training"]["epochs"] = metadata.training.epochs
    return identity


def _find_differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _find_differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new
