"""A trained captioner: opened from its run directory, it captions images.

image → the network and storage dtype that the run learned from → decoder → words
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from features.extraction import Extracted, Extractor, Failed, Source
from features.networks import shared_network
from features.quantize import decode
from features.vocabulary import detokenize, read_vocabulary
from schemas.errors import DamagedError, RecordError, StoreError
from trainer.checkpoints import Checkpoints
from trainer.decoding import GreedyDecoder
from trainer.directory import CHECKPOINTS, NETWORK, VOCABULARY, read_record
from trainer.models import MODELS

if TYPE_CHECKING:
    from trainer.captioner import Captioner

DECODE_BATCH = 64
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")

ImageLike = str | os.PathLike[str] | bytes | Image.Image


@dataclass(frozen=True)
class Caption:
    """A caption that a run made.

    Args:
        text: str. The words, joined by spaces.
        words: tuple of str. The words.
        score: float. Natural logarithm of the caption's probability, its end included.
        attention: float32 array [words, places], what each word was said under, or None for models that do not attend.
    """

    text: str
    words: tuple[str, ...]
    score: float
    attention: NDArray[np.float32] | None


class Run:
    """A trained captioner; open one with `load_run`. The model and network are loaded when first needed.

    Example:
        caption = load_run("runs/first").caption("dog.jpg")
        print(caption.text)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = read_record(path)
        if self.record.model not in MODELS:
            raise StoreError(f"the run's model {self.record.model!r} is unknown to this capt", where=str(path))

    @cached_property
    def vocabulary(self) -> list[str]:
        """The words by id; 0 to 3 are the special ones."""
        words = read_vocabulary(self.path / VOCABULARY)
        if len(words) != self.record.vocabulary:
            raise DamagedError(
                f"damaged: expected {self.record.vocabulary} words, got {len(words)}", where=str(self.path / VOCABULARY)
            )
        return words

    @cached_property
    def model(self) -> "Captioner":
        """The model with the weights of the best epoch."""
        model = self.record.build()
        Checkpoints(self.path / CHECKPOINTS).load_best(model)
        return model

    def caption(self, image: ImageLike) -> Caption:
        """The caption of one image: a path, encoded bytes, or a PIL image.

        Raises:
            RecordError: the image cannot be read, decoded or extracted.
        """
        (result,) = self.caption_many([image])
        if isinstance(result, RecordError):
            raise result
        return result

    def caption_many(self, images: Iterable[ImageLike]) -> Iterator[Caption | RecordError]:
        """The captions of many images, in order; an image that fails gives its error and costs no other."""
        return self.caption_sources(Source(b"", _reader(image)) for image in images)

    def caption_sources(self, sources: Iterable[Source]) -> Iterator[Caption | RecordError]:
        """The captions of encoded images, in order; extraction and decoding go batch by batch."""
        results = self._extractor().run(sources)
        while batch := list(islice(results, DECODE_BATCH)):
            captions = iter(self._decode([result for result in batch if isinstance(result, Extracted)]))
            for result in batch:
                yield result.error if isinstance(result, Failed) else next(captions)

    def caption_features(self, features: NDArray[Any]) -> list[Caption]:
        """The captions of features [N, *shape] as the run's table holds them."""
        decoded = self._decoder(features)
        return [
            self._caption(words, score, None if decoded.attention is None else decoded.attention[i])
            for i, (words, score) in enumerate(zip(decoded.words, decoded.scores, strict=True))
        ]

    @cached_property
    def _decoder(self) -> GreedyDecoder:
        return GreedyDecoder(self.model, self.record.max_words)

    def _extractor(self) -> Extractor:
        recipe = self.record.features.recipe
        path = self.path / NETWORK
        if not path.is_file():
            raise DamagedError("the frozen network is missing", where=str(path))
        return Extractor(recipe, shared_network(path, recipe.precision))

    def _decode(self, extracted: list[Extracted]) -> list[Caption]:
        if not extracted:
            return []
        columns = {name: np.stack([row.values[name] for row in extracted]) for name in extracted[0].values}
        return self.caption_features(decode(columns))

    def _caption(self, ids: NDArray[np.int32], score: float, attention: NDArray[np.float32] | None) -> Caption:
        text = detokenize(ids, self.vocabulary)
        words = tuple(text.split(" ")) if text else ()
        return Caption(text, words, float(score), None if attention is None else attention[: len(words)])


def load_run(path: str | Path) -> Run:
    """The run in a directory; StoreError where there is none."""
    return Run(Path(path).absolute())


def _reader(image: ImageLike) -> Callable[[], bytes]:
    def read() -> bytes:
        if isinstance(image, bytes):
            return image
        if isinstance(image, Image.Image):
            return _encoded(image)
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise RecordError("read", "unreadable", f"{image}: {error.strerror or error}", permanent=False) from error

    return read


def _encoded(image: Image.Image) -> bytes:
    data = BytesIO()
    upright = ImageOps.exif_transpose(image)
    (upright if upright.mode in _PNG_MODES else upright.convert("RGB")).save(data, "PNG")
    return data.getvalue()
