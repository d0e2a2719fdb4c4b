"""A trained run: opened from its run directory, it answers about images; what it answers is its task's.

image → the network and storage dtype that the run learned from → model → answer
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.extractors.extraction import EncodedImage, ExtractedRow, ExtractionCore, FailedImage
from features.extractors.frozen_graph import load_shared_frozen_graph
from features.images.decode import to_rgb
from features.images.resizer import Resizer
from features.io.locations import local_path
from features.references import Reference
from features.store.champions import find_champion
from features.store.merge import as_keys
from features.store.storage_dtypes import decode
from schemas.errors import CorruptFileError, RecordError, UsageError
from schemas.table_config import compute_digest
from trainer.runs.directory import CHECKPOINTS, NETWORK
from trainer.runs.metadata import RunMetadata, read_metadata
from trainer.runs.training_images import read_training_images

if TYPE_CHECKING:
    from features.runtime.keras_settings import keras
    from trainer.training.checkpoints import Checkpoints

DECODE_BATCH = 64
_KINDS = {"captioner": "captioner_run.CaptionerRun", "captcha": "recognizer_run.RecognizerRun"}

ImageLike = str | os.PathLike[str] | bytes | Image.Image
Answer = TypeVar("Answer")
AnyRun = TypeVar("AnyRun", bound="Run")


class Run:
    """A trained run; open one with `load_run`. The model and network are loaded when first needed.

    Attributes:
        does: str. What it does, in words.
        command: str. The command that has it do so.
    """

    does: ClassVar[str]
    command: ClassVar[str]

    def __init__(self, path: Path, record: RunMetadata) -> None:
        self.path = path
        self.metadata = record

    @cached_property
    def model(self) -> "keras.Model":
        """The model with the weights of the best epoch."""
        from features.runtime.keras_settings import apply_settings
        from trainer.training.compile_model import computing_in

        apply_settings()
        with computing_in("float32"):
            model = self.metadata.build(self.path)
        self._checkpoints.load_best(model)
        return model

    @property
    def resizer(self) -> Resizer:
        """How images are brought to the network's size."""
        return Resizer.from_table_config(self.metadata.features.table_config)

    @property
    def identity(self) -> str:
        """A digest that changes with whatever decides the run's answers."""
        state = self._checkpoints.state()
        return compute_digest([self.metadata.model_dump(mode="json"), state.best if state else ""])

    @cached_property
    def learned(self) -> NDArray[np.uint8]:
        """The content keys of the images that it learned from, uint8 [N, 32]."""
        return read_training_images(self.path)

    def count_training_images(self, keys: NDArray[np.uint8]) -> int:
        """Returns how many of some images the run learned from.

        Args:
            keys: Their content keys, uint8 [N, 32].
        """
        return int(np.isin(as_keys(keys), as_keys(self.learned)).sum())

    @property
    def _checkpoints(self) -> "Checkpoints":
        from trainer.training.checkpoints import Checkpoints

        return Checkpoints(self.path / CHECKPOINTS)

    def _answers(
        self,
        sources: Iterable[EncodedImage],
        answer: Callable[[NDArray[Any], Sequence[int]], list[Answer]],
        first: int = 0,
    ) -> Iterator[Answer | RecordError]:
        """The answers for encoded images, in order; extraction and answering go batch by batch.

        Args:
            sources: iterable of Source. The images.
            answer: function from features [N, *shape] and the images' numbers to N answers.
            first: int. Which image of a longer request the first one is.
        """
        results = self._extractor().run(sources)
        while batch := list(islice(results, DECODE_BATCH)):
            extracted = {
                number: result for number, result in enumerate(batch, first) if isinstance(result, ExtractedRow)
            }
            answers = iter(answer(_features(extracted.values()), list(extracted)) if extracted else ())
            first += len(batch)
            for result in batch:
                yield result.error if isinstance(result, FailedImage) else next(answers)

    def _extractor(self) -> ExtractionCore:
        table_config = self.metadata.features.table_config
        path = self.path / NETWORK
        if not path.is_file():
            raise CorruptFileError("the frozen network is missing", location=str(path))
        return ExtractionCore(table_config, load_shared_frozen_graph(path, table_config.precision))


def load_run(path: str | Path) -> Any:
    """The run in a directory, of the class of its task; StoreError where there is none.

    Args:
        path: str or Path. A run directory, or a model of a store, `STORE/models/NAME`, whose champion is the run.
    """
    root = find_champion(path) or local_path(path).absolute()
    record = read_metadata(root)
    module, name = _KINDS[record.task].split(".")
    return getattr(importlib.import_module(f"trainer.runs.{module}"), name)(root, record)


def open_run(run: str | Path | Run, kind: type[AnyRun]) -> AnyRun:
    """A run of one kind; UsageError where it is of another.

    Args:
        run: str, Path or Run. A run directory, or an open run.
        kind: type. `CaptionerRun` or `RecognizerRun`.
    """
    opened = run if isinstance(run, Run) else load_run(run)
    if not isinstance(opened, kind):
        raise UsageError(
            f"the run {opened.does}; this is for one that {kind.does}", location=str(opened.path), hint=opened.command
        )
    return opened


def to_encoded_images(images: Iterable[ImageLike]) -> Iterator[EncodedImage]:
    """Images as the extraction takes them: paths, encoded bytes, or PIL images."""
    return (EncodedImage(b"", _reader(image)) for image in images)


def single_result(answers: Iterable[Answer | RecordError]) -> Answer:
    """The single answer; raised where it is an error."""
    (answer,) = answers
    if isinstance(answer, RecordError):
        raise answer
    return answer


def _features(rows: Iterable[ExtractedRow]) -> NDArray[Any]:
    values = [row.values for row in rows]
    return decode({name: np.stack([row[name] for row in values]) for name in values[0]})


def _reader(image: ImageLike) -> Callable[[], bytes]:
    def read() -> bytes:
        if isinstance(image, bytes):
            return image
        if isinstance(image, Image.Image):
            return _encoded(image)
        return Reference.from_location(str(image)).read()

    return read


def _encoded(image: Image.Image) -> bytes:
    data = BytesIO()
    to_rgb(image).save(data, "PNG")
    return data.getvalue()
