"""Records: what a run is, as run.json says it; one class a task."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from features.io.atomic_files import write
from features.store import FeatureTable
from schemas.errors import CorruptFileError, StoreError
from schemas.frozen import Frozen
from schemas.manifests import Sha256
from schemas.strict_json import parse_json
from schemas.table_config import CaptionTableConfig, FeatureTableConfig
from trainer.config import LoopConfig, RecognizerTraining, TrainingConfig
from trainer.models.configs import ModelConfig, RecognizerConfig
from trainer.models.model_specs import model_spec

if TYPE_CHECKING:
    from features.runtime.keras_settings import keras
    from trainer.models.captioner import Captioner
    from trainer.models.recognizer import Recognizer

RECORD = "run.json"
EXTRACTOR = "extractor.json"

# What may change when a run goes on: how long it trains, how often it saves and what it shows or reads of validation do
# not change what it has learned, and an extractor is known by what its features are, wherever its file lies.
_HOW_LONG = ("epochs", "save_steps", "num_sample_captions", "num_validation_images", "early_stopping_patience")
_WHERE_FROM = ("extractor", "extractor_weights", "extractor_layer", "extractor_preprocess")
_MAY_CHANGE: Any = {"training": {*_HOW_LONG, *_WHERE_FROM}, "libraries": True}
_WORDS = {
    "train": "the train split's images and captions or words, by digest",
    "validation": "the validation split's images and captions or words, by digest",
}


class FeatureOrigin(Frozen):
    """The feature table that a run was trained on."""

    fingerprint: Sha256
    table_config: FeatureTableConfig
    shape: tuple[int, ...]
    network: Sha256

    @classmethod
    def of(cls, table: FeatureTable) -> "FeatureOrigin":
        """What a run keeps of its table."""
        return cls(
            fingerprint=table.fingerprint,
            table_config=table.table_config,
            shape=table.shape,
            network=table.facts.network,
        )


class ExtractorOrigin(Frozen):
    """The extractor in the model of a run on pixels: what its features are, and the shape of one image's."""

    table_config: FeatureTableConfig
    shape: tuple[int, ...]


class CaptionOrigin(Frozen):
    """A text table that a run was trained on."""

    fingerprint: Sha256
    table_config: CaptionTableConfig


class RunMetadata(Frozen):
    """What every run is.

    Args:
        task: str. What the run learns to do.
        model: str. Name of the model.
        sizes: dict. Its configuration.
        training: LoopConfig. How it is trained.
        datasets: tuple of str. Names in the store.
        features: FeatureOrigin. The feature table.
        train, validation: Sha256. Digests of the labels and images trained and validated on.
        validation_split: str or None. The split validated on.
        libraries: dict. Versions that it was begun with.
        warm: Sha256 or None. The identity of the run whose weights it began with.
    """

    version: Literal[1] = 1
    task: str
    model: str
    sizes: dict[str, Any]
    training: LoopConfig
    datasets: tuple[str, ...]
    features: FeatureOrigin
    train: Sha256
    validation: Sha256 | None
    validation_split: str | None
    libraries: dict[str, str]
    warm: Sha256 | None = None

    def build(self, root: Path) -> "keras.Model":
        """The model, with fresh weights.

        Args:
            root: Path. The run directory.
        """
        raise NotImplementedError


class CaptionerMetadata(RunMetadata):
    """What a captioner's run is, beside what every run has by `RunMetadata`.

    Args:
        text: tuple of CaptionOrigin. The text table of each dataset.
        vocabulary: int. Number of word ids.
        max_new_tokens: int. Tokens at most in a caption it makes, the end token too.
        extractor: ExtractorOrigin or None. The extractor in the model, where `features` are pixels.
    """

    task: Literal["captioner"] = "captioner"
    training: TrainingConfig
    text: tuple[CaptionOrigin, ...]
    vocabulary: int = Field(ge=4)
    max_new_tokens: int = Field(ge=1)
    extractor: ExtractorOrigin | None = None

    @property
    def config(self) -> ModelConfig:
        """The model's configuration, typed."""
        return model_spec(self.model).config(**self.sizes)

    def build(self, root: Path) -> "Captioner":
        """As `RunMetadata` has it."""
        spec = model_spec(self.model)
        if self.extractor is None:
            return spec.build(self.config, self.vocabulary, self.features.shape)
        from trainer.models.backbone import load_backbone

        layers = load_backbone(
            root / EXTRACTOR, self.extractor.table_config, trainable_extractor=self.training.extractor_lr_multiplier > 0
        )
        return spec.build(self.config, self.vocabulary, self.extractor.shape, layers)


class RecognizerMetadata(RunMetadata):
    """What the run of a recognizer of words is, beside what every run has by `RunMetadata`.

    Args:
        words: int. Distinct words of the train split, which `words.txt` keeps.
    """

    task: Literal["captcha"] = "captcha"
    model: Literal["recognizer"] = "recognizer"
    training: RecognizerTraining
    words: int = Field(ge=1)

    @property
    def config(self) -> RecognizerConfig:
        """The model's configuration, typed."""
        return RecognizerConfig(**self.sizes)

    def build(self, root: Path) -> "Recognizer":
        """As `RunMetadata` has it."""
        from trainer.models.recognizer import Recognizer

        model = Recognizer(self.config)
        model.build((None, *self.features.shape))
        return model


_RECORDS: dict[str, type[RunMetadata]] = {"captioner": CaptionerMetadata, "captcha": RecognizerMetadata}


class _Task(Frozen, extra="ignore"):
    """The part of run.json that says how to read the rest; the first runs were all captioners and did not say it."""

    task: str = "captioner"


def library_versions() -> dict[str, str]:
    """Versions of the libraries that training depends on."""
    return {name: importlib.metadata.version(name) for name in ("keras", "numpy", "tensorflow")}


def read_metadata(root: Path) -> RunMetadata:
    """What run.json says; StoreError where there is none or it cannot be used, CorruptFileError where it is not
    JSON.
    """
    path = root / RECORD
    try:
        data = path.read_bytes()
        parse_json(data)
        task = _Task.model_validate_json(data).task
        if task not in _RECORDS:
            raise StoreError(f"this capt knows no runs of the task {task!r}", location=str(path))
        return _RECORDS[task].model_validate_json(data)
    except FileNotFoundError:
        raise StoreError(
            "no run is here", location=str(root), hint="make one with `capt train captioner` or `capt train captcha`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(f"not a run that this capt reads: {place}: {first['msg']}", location=str(path)) from None
    except ValueError as error:
        raise CorruptFileError(f"damaged: {error}", location=str(path)) from None


def write_metadata(root: Path, record: RunMetadata) -> None:
    """Write run.json."""
    write(root / RECORD, record.model_dump_json(indent=1).encode() + b"\n")


def refuse_other(root: Path, new: RunMetadata) -> None:
    """StoreError naming the first difference where the directory holds another run than `new`."""
    differences = list(_differences(_identity(read_metadata(root)), _identity(new)))
    if differences:
        name, expected, got = differences[0]
        raise StoreError(
            f"the directory holds another run: {_WORDS.get(name, name)}: expected {expected}, got {got}",
            location=str(root),
            hint="train with the settings and data it was begun with, or into another --run-dir",
        )


def _identity(record: RunMetadata) -> dict[str, Any]:
    identity = record.model_dump(mode="json", exclude=_MAY_CHANGE)
    # A size that the capt of the day did not know yet is what it is by default.
    identity["sizes"] = record.config.model_dump(mode="json")
    if record.training.lr_schedule == "cosine":
        # The rate at a step depends on how many there are.
        identity["training"]["epochs"] = record.training.epochs
    return identity


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new
