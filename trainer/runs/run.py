"""Loads a trained run and predicts from images.

image → extractor and storage dtype of the run's feature table → model → prediction
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property, partial
from io import BytesIO
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.extractors.extraction import EncodedImage, ExtractionCore, FailedImage
from features.extractors.runtimes import load_shared_extractor
from features.images.decode import to_rgb
from features.images.resize import Resizer
from features.inputs.image_urls import is_image_url
from features.inputs.named_image import read_image
from features.io.locations import local_path
from features.store.merge import as_keys
from features.store.model_history import find_champion
from features.store.storage_dtypes import decode
from schemas.defaults import MAX_IMAGE_PIXELS
from schemas.errors import CorruptFileError, RecordError, UsageError
from schemas.table_config import compute_digest
from trainer.runs.directory import CHECKPOINTS, locate_extractor, read_training_images
from trainer.runs.metadata import RunMetadata, read_metadata
from trainer.task_registry import find_task

if TYPE_CHECKING:
    from features.runtime.keras_settings import keras
    from features.store import Store
    from trainer.data.table_selection import TrainingTables
    from trainer.runs.checkpoints import Checkpoints, Progress
    from trainer.tasks.task import Task

DECODE_BATCH = 64

IMPORTED_PROBLEM = "the run was trained on imported features, and capt does not know the extractor that computed them"
IMPORTED_HINT = (
    "Use `capt evaluate` on the images of its dataset, or train on features that `capt prepare features` extracts."
)

ImageLike = str | os.PathLike[str] | bytes | Image.Image
AnyPrediction = TypeVar("AnyPrediction")
AnyRun = TypeVar("AnyRun", bound="Run")


class Run(ABC):
    """A trained run; open it with `load_run`. The model and the extractor are loaded when first needed.

    `epoch` is the epoch whose weights the model has; None for the best one. Images with more than `max_image_pixels`
    pixels fail before they are decoded; set it before the first prediction.
    """

    def __init__(self, path: Path, metadata: RunMetadata, epoch: int | None = None) -> None:
        self.path = path
        self.metadata = metadata
        self.epoch = epoch
        self.max_image_pixels = MAX_IMAGE_PIXELS

    @abstractmethod
    def predict_texts(self, features: NDArray[Any]) -> list[str]:
        """Predicts one text per image from features [N, *shape] of the run's feature table, by greedy decoding."""

    @property
    def task(self) -> "Task":
        """The task that the run was trained for."""
        return find_task(self.metadata.task)

    @cached_property
    def model(self) -> Any:
        """The Keras model with the weights of the best epoch, or of `epoch`."""
        from features.runtime.keras_settings import apply_settings, compute_in

        apply_settings()
        with compute_in("float32"):
            model: keras.Model = self.metadata.build(self.path)
        self._checkpoints.load(model, self.epoch)
        return model

    def check_epoch(self) -> None:
        """Raises UsageError if the weights of the epoch were not kept; CorruptFileError without a checkpoint."""
        self._checkpoints.find(self.epoch)

    def read_progress(self) -> "Progress":
        """Returns the progress of the training with the metrics of its epochs.

        Raises:
            CorruptFileError: The run has no checkpoint yet, or its state is corrupt.
        """
        return self._checkpoints.read_state().progress

    @property
    def best_epoch(self) -> int | None:
        """The best finished epoch; None before the first one. Raises as `read_progress`."""
        best = self.read_progress().best
        return best.epoch if best else None

    @property
    def confidence_note(self) -> str:
        """How the confidence of predictions is calibrated, in words; empty if they have none."""
        return ""

    def check_files(self) -> None:  # noqa: B027
        """Reads the small files that another run copies from this one; StoreError if one is missing or corrupt."""

    def require_extractor(self) -> Path:
        """Returns the path of the extractor, a frozen graph or a Keras model.

        Raises:
            UsageError: The run was trained on imported features, so nothing can compute those of a new image.
            CorruptFileError: The file is missing.
        """
        path = locate_extractor(self.path)
        if self.metadata.features.network is None:
            raise UsageError(IMPORTED_PROBLEM, location=str(self.path), hint=IMPORTED_HINT)
        if not path.is_file():
            raise CorruptFileError("the extractor is missing", location=str(path))
        return path

    @property
    def resizer(self) -> Resizer:
        """The resizer of the run's input images."""
        return Resizer.from_table_config(self.metadata.features.table_config)

    @property
    def identity(self) -> str:
        """A digest of all inputs that determine the run's predictions."""
        state = self._checkpoints.state()
        checkpoint = self._checkpoints.find(self.epoch) if state else ""
        ignored = set(self.metadata.training.without_effect_on_weights)
        # Only the temperature of a calibration affects predictions, and only with its weights.
        metadata = self.metadata.model_dump(mode="json", exclude={"training": ignored, "calibration": True})
        return compute_digest([metadata, checkpoint])

    @property
    def evaluation_name(self) -> str:
        """Directory of the run's evaluations within `evaluation`; empty unless they are of an epoch."""
        return f"epoch-{self.epoch}" if self.epoch else ""

    @property
    def ensemble_paths(self) -> Sequence[Path]:
        """Directories of the other runs, if this is an ensemble."""
        return ()

    @property
    def validation_splits(self) -> frozenset[str]:
        """The splits on which the best epoch was selected: one, or none without validation."""
        return frozenset(filter(None, [self.metadata.validation_split]))

    def open_tables(self, store: "Store") -> "TrainingTables":
        """Opens the tables that the run was trained on, in their current state; StoreError if one is missing."""
        return self.metadata.open_tables(store)

    @cached_property
    def training_images(self) -> NDArray[np.uint8]:
        """The content hashes of the training images, uint8 [N, 32]."""
        return read_training_images(self.path)

    def count_training_images(self, keys: NDArray[np.uint8]) -> int:
        """Counts how many of the images with these content hashes, uint8 [N, 32], are training images."""
        return int(np.isin(as_keys(keys), as_keys(self.training_images)).sum())

    def name_image(self, dataset: str, image_id: str) -> str:
        """Returns the name of a training or held-out image: its ID, with the dataset's name if the run has several."""
        return f"{dataset}/{image_id}" if len(self.metadata.datasets) > 1 else image_id

    @property
    def _checkpoints(self) -> "Checkpoints":
        from trainer.runs.checkpoints import Checkpoints

        return Checkpoints(self.path / CHECKPOINTS)

    def _predict(
        self,
        images: Iterable[EncodedImage],
        predict: Callable[[NDArray[Any], Sequence[int]], list[AnyPrediction]],
        numbers: Iterable[int] | None = None,
    ) -> Iterator[AnyPrediction | RecordError]:
        """Predicts from encoded images in batches, in order; a failed image yields its error.

        `predict` maps features [N, *shape] and the numbers of the images, by default 0, 1, …, to N predictions.
        """
        results = zip(self._extract(images), count() if numbers is None else numbers, strict=False)
        while batch := list(islice(results, DECODE_BATCH)):
            rows = [(result, number) for result, number in batch if not isinstance(result, RecordError)]
            features, numbered = zip(*rows, strict=True) if rows else ((), ())
            predictions = iter(predict(np.stack(features), numbered) if rows else ())
            for result, _ in batch:
                yield result if isinstance(result, RecordError) else next(predictions)

    def _extract(self, images: Iterable[EncodedImage]) -> Iterator[NDArray[Any] | RecordError]:
        """Extracts features [*shape] of encoded images as the run's feature table contains them, in order."""
        for result in self._extraction.run(images):
            yield result.error if isinstance(result, FailedImage) else decode(result.values)

    @cached_property
    def _extraction(self) -> ExtractionCore:
        path, table_config = self.require_extractor(), self.metadata.features.table_config
        extractor = load_shared_extractor(path, table_config)
        return ExtractionCore.for_extractor(table_config, extractor, max_pixels=self.max_image_pixels)


def load_run(path: str | Path, epoch: int | None = None) -> Any:
    """Loads the run in a directory, or the champion of `STORE/models/NAME`; its class depends on its task.

    Args:
        path: The run directory or the registered model.
        epoch: The epoch whose weights are used; None for the best one.

    Raises:
        StoreError: The directory does not contain a run.
        UsageError: The weights of the epoch were not kept.
    """
    root = find_champion(path) or local_path(path).absolute()
    metadata = read_metadata(root)
    run = find_task(metadata.task).run(root, metadata, epoch)
    if epoch is not None:
        run.check_epoch()
    return run


def open_run(run: str | Path | Run, kind: type[AnyRun], epoch: int | None = None) -> AnyRun:
    """Opens a run, or a run directory, of one class such as `CaptionerRun`; UsageError if it has another class.

    `epoch` is that of `load_run`, for a run directory.
    """
    opened = run if isinstance(run, Run) else load_run(run, epoch)
    if not isinstance(opened, kind):
        task = opened.task
        raise UsageError(
            f"the run {task.description}, so this command cannot use it",
            location=str(opened.path),
            hint=f"Use `{task.command}`.",
        )
    return opened


def to_encoded_images(images: Iterable[ImageLike]) -> Iterator[EncodedImage]:
    """Converts paths, URLs, encoded bytes or PIL images to the input of the extraction."""
    return (EncodedImage(b"", _reader(image)) for image in images)


def single_result(results: Iterable[AnyPrediction | RecordError]) -> AnyPrediction:
    """Returns the only result, or raises it if it is an error."""
    (result,) = results
    if isinstance(result, RecordError):
        raise result
    return result


def _reader(image: ImageLike) -> Callable[[], bytes]:
    """Returns a function that reads an image. The image at a URL is downloaded once."""
    read = partial(_read, image)
    return cache(read) if isinstance(image, str) and is_image_url(image) else read


def _read(image: ImageLike) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        data = BytesIO()
        to_rgb(image).save(data, "PNG")
        return data.getvalue()
    return read_image(image)
