"""Computes the rows of a response for each task: those that `capt caption` and `capt recognize` print."""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.extractors.extraction import EncodedImage
from features.images.decode import open_image
from features.images.resize import Resizer
from schemas.errors import RecordError
from schemas.options.serving import CaptionRequest, RecognizeRequest, RequestOptions
from schemas.table_config import END, SPECIAL_TOKENS
from trainer.inference import caption_images, recognize_images
from trainer.runs.captioner_run import Caption, CaptionerRun
from trainer.runs.recognizer_run import RecognizedImage, RecognizerRun
from trainer.runs.run import Run

Prediction = Caption | RecognizedImage | RecordError


@dataclass(frozen=True)
class RequestImage:
    """An encoded image of a request, or the error of one that could not be downloaded."""

    name: str
    data: bytes | RecordError

    def read(self) -> bytes:
        """Returns the encoded image, or raises its error."""
        if isinstance(self.data, RecordError):
            raise self.data
        return self.data


class ServedTask(ABC):
    """A task whose runs can be served. Its options are the query parameters of its path."""

    name: str  # in the metadata of runs
    path: str
    options: type[RequestOptions]

    @abstractmethod
    def check(self, run: Any, options: Any) -> None:
        """Raises UsageError if the options do not fit the run."""

    @abstractmethod
    def batch_key(self, options: Any) -> Hashable:
        """Returns a key that is equal for options with which images can be predicted in one batch."""

    @abstractmethod
    def predict(
        self, run: Any, options: Any, images: Sequence[RequestImage], numbers: Sequence[int]
    ) -> list[Prediction]:
        """Predicts from the images of a batch; `numbers` are their numbers in their requests, which seed samples."""

    @abstractmethod
    def to_row(self, run: Any, options: Any, image: RequestImage, prediction: Any) -> dict[str, Any]:
        """Returns the row of an image."""

    def has_attention(self, prediction: Any) -> bool:
        """Returns whether the predictions of a run have attention weights of a square grid."""
        return False


class ServedCaptioning(ServedTask):
    """Captions images."""

    name, path, options = "captioner", "/v1/caption", CaptionRequest

    def check(self, run: CaptionerRun, options: CaptionRequest) -> None:
        run.decoding(**options.generation())

    def batch_key(self, options: CaptionRequest) -> Hashable:
        return tuple(sorted(options.generation().items()))

    def predict(
        self, run: CaptionerRun, options: CaptionRequest, images: Sequence[RequestImage], numbers: Sequence[int]
    ) -> list[Prediction]:
        encoded = (EncodedImage(b"", image.read) for image in images)
        return list(run.caption_encoded(encoded, run.decoding(**options.generation()), numbers))

    def to_row(
        self, run: CaptionerRun, options: CaptionRequest, image: RequestImage, prediction: Caption | RecordError
    ) -> dict[str, Any]:
        row = {"image": image.name, **caption_images.to_json(prediction)}
        if options.attention and isinstance(prediction, Caption):
            row["attention"] = _describe_attention(run, image, prediction) if self.has_attention(prediction) else None
        return row

    def has_attention(self, prediction: Caption) -> bool:
        if prediction.attention is None:
            return False
        locations: int = prediction.attention.shape[-1]
        return math.isqrt(locations) ** 2 == locations


class ServedRecognition(ServedTask):
    """Recognizes the text in CAPTCHA images. Every decoding strategy is computed, so all requests fit into a batch."""

    name, path, options = "captcha", "/v1/recognize", RecognizeRequest

    def check(self, run: RecognizerRun, options: RecognizeRequest) -> None:
        pass

    def batch_key(self, options: RecognizeRequest) -> Hashable:
        return ()

    def predict(
        self, run: RecognizerRun, options: RecognizeRequest, images: Sequence[RequestImage], numbers: Sequence[int]
    ) -> list[Prediction]:
        return list(run.recognize_all_strategies(EncodedImage(b"", image.read) for image in images))

    def to_row(
        self, run: Run, options: RecognizeRequest, image: RequestImage, prediction: RecognizedImage | RecordError
    ) -> dict[str, Any]:
        shown = recognize_images.to_json(prediction, options.decoding_strategy, options.min_confidence)
        return {"image": image.name, **shown}


SERVED_TASKS: tuple[ServedTask, ...] = (ServedCaptioning(), ServedRecognition())


def _describe_attention(run: CaptionerRun, image: RequestImage, caption: Caption) -> dict[str, Any]:
    """Describes the attention weights of a caption: the grid, the words with their weights, and the visible part."""
    words, weights = list(caption.words), np.asarray(caption.attention)
    if caption.end_attention is not None:
        words, weights = [*words, SPECIAL_TOKENS[END]], np.concatenate([weights, caption.end_attention[None]])
    side = math.isqrt(weights.shape[-1])
    return {
        "height": side,
        "width": side,
        "words": words,
        "weights": weights.tolist(),
        "box": _find_box(run.resizer, image, run.max_image_pixels),
    }


def _find_box(resizer: Resizer, image: RequestImage, max_pixels: int) -> list[float]:
    """Returns left, top, right and bottom of the part that the model received, as fractions of the upright image.

    With padding, the part is larger than the image.
    """
    if resizer.mode == "stretch":
        return [0.0, 0.0, 1.0, 1.0]
    upright = open_image(image.read(), max_pixels=max_pixels)
    (top, bottom), (left, right) = (span.visible for span in resizer.compute_spans(upright))
    return [left / upright.width, top / upright.height, right / upright.width, bottom / upright.height]
