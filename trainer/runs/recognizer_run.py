"""Recognizes the text in images with a trained CAPTCHA recognizer.

image → pixels as in the run's feature table → recognizer → logits / temperature → greedy, beam search or lexicon
decoding → label
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from features.extractors.extraction import EncodedImage
from schemas.choices import DecodingStrategy
from schemas.errors import CorruptFileError, RecordError, UsageError
from schemas.table_config import compute_digest
from trainer.decoding.label_decoder import LabelDecoder, Prediction
from trainer.runs.directory import LABELS
from trainer.runs.metadata import Calibration, RecognizerMetadata
from trainer.runs.run import ImageLike, Run, single_result, to_encoded_images

if TYPE_CHECKING:
    from trainer.models.recognizer import Recognizer

STRATEGIES: tuple[DecodingStrategy, ...] = get_args(DecodingStrategy)


@dataclass(frozen=True)
class RecognizedImage:
    """The predictions for one image, one per decoding strategy; `lexicon` is a label of the train split."""

    greedy: Prediction
    beam: Prediction
    lexicon: Prediction

    def by(self, strategy: DecodingStrategy) -> Prediction:
        """Returns the prediction of one decoding strategy."""
        prediction: Prediction = getattr(self, strategy)
        return prediction


@dataclass(frozen=True)
class EvaluatedImage(RecognizedImage):
    """`uncalibrated` is the greedy prediction with the confidence that it has without the temperature of the run."""

    uncalibrated: Prediction


class RecognizerRun(Run):
    """A trained CAPTCHA recognizer; open it with `trainer.runs.run.load_run`.

    Example:
        prediction = load_run("runs/captcha").recognize("a120000.png")
        print(prediction.text, prediction.score)
    """

    metadata: RecognizerMetadata
    model: "Recognizer"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The distinct labels of the train split, sorted."""
        path = self.path / LABELS
        try:
            labels = tuple(path.read_bytes().decode().split("\n")[:-1])
        except FileNotFoundError:
            raise CorruptFileError("the labels of the train split are missing", location=str(path)) from None
        except UnicodeDecodeError:
            raise CorruptFileError("the labels of the train split are not UTF-8", location=str(path)) from None
        expected = self.metadata.num_labels
        if len(labels) != expected:
            message = f"the labels of the train split are corrupt: expected {expected}, got {len(labels)}"
            raise CorruptFileError(message, location=str(path))
        return labels

    @cached_property
    def temperature(self) -> float:
        """The temperature by which logits are divided; 1 for weights that it was not fitted for."""
        calibration = self.metadata.calibration
        return calibration.temperature if calibration and self._is_of_weights(calibration) else 1.0

    @property
    def is_calibrated(self) -> bool:
        """Whether the confidence of predictions is calibrated: a temperature was fitted for the weights."""
        calibration = self.metadata.calibration
        return calibration is not None and calibration.ece is not None and self._is_of_weights(calibration)

    @property
    def confidence_note(self) -> str:
        one = self.metadata.calibration
        if one is None:
            return "Confidence is not calibrated, because the training has not ended."
        if one.ece is None or one.ece_uncalibrated is None:
            return f"Confidence is not calibrated, because there are only {one.images} validation images."
        if not self._is_of_weights(one):
            return "Confidence is not calibrated, because the temperature of the run is that of other weights."
        return (
            f"Confidence is calibrated on {one.images:,} validation images: temperature {one.temperature:g}; expected "
            f"calibration error {100 * one.ece:.2f}%, before {100 * one.ece_uncalibrated:.2f}%."
        )

    @property
    def identity(self) -> str:
        return compute_digest([super().identity, self.temperature])

    def _is_of_weights(self, calibration: Calibration) -> bool:
        return calibration.checkpoint == self._checkpoints.find(self.epoch)

    @cached_property
    def _decoders(self) -> dict[DecodingStrategy, LabelDecoder]:
        config = self.metadata.config
        return {
            strategy: LabelDecoder(config.characters, config.head, strategy, self.labels) for strategy in STRATEGIES
        }

    @cached_property
    def _compute_logits(self) -> Any:
        from features.runtime.keras_settings import compile_function

        # The model is loaded before tracing: weights that are loaded while a graph is traced stay in that graph.
        model, head, temperature = self.model, self.metadata.config.head, self.temperature
        return compile_function(lambda images: model(images, training=False)[head] / temperature)

    def recognize(self, image: ImageLike, strategy: DecodingStrategy = "greedy") -> Prediction:
        """Recognizes the text in one image: a path, encoded bytes, or a PIL image.

        Raises:
            RecordError: The image cannot be read or decoded.
        """
        return single_result(self.recognize_many([image], strategy))

    def recognize_many(
        self, images: Iterable[ImageLike], strategy: DecodingStrategy = "greedy"
    ) -> Iterator[Prediction | RecordError]:
        """Recognizes the text in images, in order. A failed image is yielded as a RecordError; processing continues.

        Raises:
            UsageError: The strategy is unknown.
        """
        return self.recognize_encoded(to_encoded_images(images), strategy)

    def recognize_encoded(
        self, images: Iterable[EncodedImage], strategy: DecodingStrategy = "greedy"
    ) -> Iterator[Prediction | RecordError]:
        """Recognizes the text in encoded images in batches, as `recognize_many` does."""
        if strategy not in STRATEGIES:
            hint = f"Use one of {', '.join(STRATEGIES)}."
            raise UsageError(f"unknown strategy {strategy!r}", location="--decoding-strategy", hint=hint)
        return self._predict(images, lambda pixels, _: self._decoders[strategy](self.logits(pixels)))

    def recognize_all_strategies(self, images: Iterable[EncodedImage]) -> Iterator[RecognizedImage | RecordError]:
        """Recognizes the text in encoded images with every decoding strategy, in order."""
        return self._predict(images, lambda pixels, _: self.recognize_pixels(pixels))

    def recognize_pixels(self, pixels: NDArray[np.uint8]) -> list[RecognizedImage]:
        """Recognizes the text in images uint8 [N, H, W, 3] of the run's feature table with every strategy."""
        return list(map(RecognizedImage, *self._decode(self.logits(pixels))))

    def evaluate_pixels(self, pixels: NDArray[np.uint8]) -> list[EvaluatedImage]:
        """Recognizes as `recognize_pixels`, also without the temperature of the run."""
        logits = self.logits(pixels)
        uncalibrated = self._decoders["greedy"](logits * np.float32(self.temperature))
        return list(map(EvaluatedImage, *self._decode(logits), uncalibrated))

    def _decode(self, logits: NDArray[np.float32]) -> list[list[Prediction]]:
        """Decodes logits with each strategy."""
        return [self._decoders[strategy](logits) for strategy in STRATEGIES]

    def predict_texts(self, features: NDArray[Any]) -> list[str]:
        """Predicts one label per image by greedy decoding."""
        return [prediction.text for prediction in self._decoders["greedy"](self.logits(features))]

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Computes the logits float32 [N, T, classes] of the decoded head from images uint8 [N, H, W, 3].

        They are divided by the temperature of the run.
        """
        from features.runtime.keras_settings import ops

        logits: NDArray[np.float32] = ops.convert_to_numpy(self._compute_logits(ops.convert_to_tensor(pixels)))
        return logits
