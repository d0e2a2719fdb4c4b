"""A trained recognizer: opened from its run directory, it reads the words in images.

image → pixels as the run learned from → recognizer → greedily, by beam search, or from the words of the train split
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from features.extractors.extraction import EncodedImage
from schemas.errors import CorruptFileError, RecordError, UsageError
from schemas.options.generation import SearchOptions
from schemas.options.shared import DecodingStrategy
from trainer.decoding.ctc_decoder import CtcDecoder, Prediction
from trainer.runs.directory import WORDS
from trainer.runs.metadata import RecognizerMetadata
from trainer.runs.run import ImageLike, Run, single_result, to_encoded_images

if TYPE_CHECKING:
    from trainer.models.recognizer import Recognizer

STRATEGIES: tuple[DecodingStrategy, ...] = get_args(DecodingStrategy)


@dataclass(frozen=True)
class RecognizedImage:
    """What a run reads in an image: a word each by itself, by search, and of the words that it has learned.

    Args:
        greedy: Reading. By the likeliest letters.
        beam: Reading. The likeliest word that a search found.
        lexicon: Reading. The likeliest of the train split's words.
    """

    greedy: Prediction
    beam: Prediction
    lexicon: Prediction

    def by(self, how: DecodingStrategy) -> Prediction:
        """The one that is decoded so."""
        reading: Prediction = getattr(self, how)
        return reading


class RecognizerRun(Run):
    """A trained recognizer of words; open one with `trainer.runs.run.load_run`.

    Example:
        reading = load_run("runs/captcha").recognize("a120000.png")
        print(reading.text, reading.score)
    """

    metadata: RecognizerMetadata
    model: "Recognizer"
    does = "reads words"
    command = "capt recognize"

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of the train split, by alphabet."""
        path = self.path / WORDS
        try:
            words = tuple(path.read_text(encoding="utf-8").split())
        except FileNotFoundError:
            raise CorruptFileError("the words of the train split are missing", location=str(path)) from None
        except UnicodeDecodeError:
            raise CorruptFileError("the words of the train split are not UTF-8", location=str(path)) from None
        if len(words) != self.metadata.words:
            raise CorruptFileError(
                f"damaged: expected {self.metadata.words} words, got {len(words)}", location=str(path)
            )
        return words

    @cached_property
    def _readers(self) -> dict[DecodingStrategy, CtcDecoder]:
        head = self.metadata.config.head
        return {how: CtcDecoder(head, how, self.words) for how in STRATEGIES}

    @cached_property
    def _logits(self) -> Any:
        # Taken here, for weights that are loaded while a graph is being traced stay behind in it.
        model, head = self.model, self.metadata.config.head
        from features.runtime.keras_settings import compile_function

        return compile_function(lambda images: model(images, training=False)[head])

    def recognize(self, image: ImageLike, how: DecodingStrategy = "greedy") -> Prediction:
        """The word in one image: a path, encoded bytes, or a PIL image.

        Raises:
            RecordError: the image cannot be read or decoded.
        """
        return single_result(self.recognize_many([image], how))

    def recognize_many(
        self, images: Iterable[ImageLike], how: DecodingStrategy = "greedy"
    ) -> Iterator[Prediction | RecordError]:
        """The words in many images, in order; an image that fails gives its error and costs no other."""
        return self.recognize_encoded(to_encoded_images(images), how)

    def recognize_encoded(
        self, sources: Iterable[EncodedImage], how: DecodingStrategy = "greedy"
    ) -> Iterator[Prediction | RecordError]:
        """The words in encoded images, in order; decoding and reading go batch by batch."""
        check_decoding_strategy(how)
        return self._answers(sources, lambda pixels, _: self._readers[how](self.logits(pixels)))

    def recognize_all_strategies(self, sources: Iterable[EncodedImage]) -> Iterator[RecognizedImage | RecordError]:
        """What every decoder reads in encoded images, in order."""
        return self._answers(sources, lambda pixels, _: self.recognize_pixels(pixels))

    def recognize_pixels(self, pixels: NDArray[np.uint8]) -> list[RecognizedImage]:
        """What every decoder reads in images uint8 [N, H, W, 3] as the run's table holds them."""
        logits = self.logits(pixels)
        readings = zip(*(self._readers[how](logits) for how in STRATEGIES), strict=True)
        return [RecognizedImage(*each) for each in readings]

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the head that reads gives for images uint8 [N, H, W, 3]: float32 [N, T, 27]."""
        from features.runtime.keras_settings import ops

        logits: NDArray[np.float32] = ops.convert_to_numpy(self._logits(ops.convert_to_tensor(pixels)))
        return logits


def refuse_generation_options(options: SearchOptions) -> None:
    """Raises UsageError if an option is given that decides how captions are generated."""
    given = options.generation()
    if given:
        option = f"--{next(iter(given))}".replace("_", "-")
        raise UsageError("it is for captions, and the run reads words", location=option, hint="leave it out")


def check_decoding_strategy(how: str) -> None:
    """UsageError where there is no such decoder."""
    if how not in STRATEGIES:
        names = ", ".join(STRATEGIES)
        raise UsageError(f"unknown strategy {how!r}", location="--decoding-strategy", hint=f"Use one of {names}.")
