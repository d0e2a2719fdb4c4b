"""A trained captioner: opened from its run directory, it captions images.

image → the network and storage dtype that the run learned from → decoder → words
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from features.extractors.extraction import EncodedImage
from features.text.vocabulary import detokenize, read_vocabulary
from schemas.errors import CorruptFileError, RecordError, StoreError, UsageError
from trainer.decoding.generation import IMPOSSIBLE, GenerationConfig, GenerationOutput
from trainer.models.model_specs import MODELS
from trainer.runs.directory import VOCABULARY
from trainer.runs.metadata import CaptionerMetadata
from trainer.runs.run import ImageLike, Run, single_result, to_encoded_images

if TYPE_CHECKING:
    from trainer.decoding.decoding_loop import AutoregressiveDecoder
    from trainer.models.captioner import Captioner


@dataclass(frozen=True)
class Caption:
    """A caption that a run made.

    Args:
        text: str. The words, joined by spaces.
        words: tuple of str. The words.
        score: float. Natural logarithm of the caption's probability, its end included.
        attention: float32 array [words, places], what each word was said under, or None for models that do not attend.
        others: tuple of Caption. The next best ones, where several were asked for.
    """

    text: str
    words: tuple[str, ...]
    score: float
    attention: NDArray[np.float32] | None
    others: tuple["Caption", ...] = ()


class CaptionerRun(Run):
    """A trained captioner; open one with `trainer.runs.run.load_run`.

    Example:
        caption = load_run("runs/first").caption("dog.jpg")
        print(caption.text)
    """

    metadata: CaptionerMetadata
    model: "Captioner"
    does = "captions images"
    command = "capt caption"

    def __init__(self, path: Path, record: CaptionerMetadata) -> None:
        super().__init__(path, record)
        self._decoders: dict[GenerationConfig, AutoregressiveDecoder] = {}
        if record.model not in MODELS:
            raise StoreError(f"the run's model {record.model!r} is unknown to this capt", location=str(path))

    @cached_property
    def vocabulary(self) -> list[str]:
        """The words by id; 0 to 3 are the special ones."""
        words = read_vocabulary(self.path / VOCABULARY)
        if len(words) != self.metadata.vocabulary:
            raise CorruptFileError(
                f"damaged: expected {self.metadata.vocabulary} words, got {len(words)}",
                location=str(self.path / VOCABULARY),
            )
        return words

    def decoding(self, *, bad_words: Sequence[str] = (), **options: Any) -> GenerationConfig:
        """Returns how captions are generated; without options, by greedy decoding.

        Args:
            bad_words: Words of the vocabulary that are never generated.
            **options: Fields of `GenerationConfig`; None is as if the option were not there.

        Raises:
            UsageError: An option is unknown or out of range, or a word is not in the vocabulary.
        """
        given = {name: value for name, value in options.items() if value is not None}
        bad = tuple(self._word_id(word) for word in bad_words)
        if given.get("temperature") == 0:
            del given["temperature"]  # greedy decoding
        try:
            return GenerationConfig(**{"max_new_tokens": self.metadata.max_new_tokens, "bad_word_ids": bad, **given})
        except ValidationError as error:
            first = error.errors()[0]
            name = "".join(f"--{field}: ".replace("_", "-") for field in first["loc"])
            raise UsageError(f"{name}{first['msg'].removeprefix('Value error, ')}") from None

    def _word_id(self, word: str) -> int:
        try:
            return self.vocabulary.index(word)
        except ValueError:
            raise UsageError(f"{word!r} is no word of the run's vocabulary", location="--bad-words") from None

    def caption(self, image: ImageLike, decoding: GenerationConfig | None = None) -> Caption:
        """The caption of one image: a path, encoded bytes, or a PIL image.

        Raises:
            RecordError: the image cannot be read, decoded or extracted.
        """
        return single_result(self.caption_many([image], decoding))

    def caption_many(
        self, images: Iterable[ImageLike], decoding: GenerationConfig | None = None
    ) -> Iterator[Caption | RecordError]:
        """The captions of many images, in order; an image that fails gives its error and costs no other."""
        return self.caption_encoded(to_encoded_images(images), decoding)

    def caption_encoded(
        self, sources: Iterable[EncodedImage], decoding: GenerationConfig | None = None, first: int = 0
    ) -> Iterator[Caption | RecordError]:
        """The captions of encoded images, in order; extraction and decoding go batch by batch.

        Args:
            sources: iterable of Source. The images.
            decoding: GenerationConfig or None. How captions are chosen; None says the likeliest next word.
            first: int. Which image of a longer request the first one is, which decides what is drawn for it.
        """

        def captions(features: NDArray[Any], numbers: Sequence[int]) -> list[Caption]:
            return self.caption_features(features, decoding, numbers)

        return self._answers(sources, captions, first)

    def caption_features(
        self, features: NDArray[Any], decoding: GenerationConfig | None = None, numbers: Sequence[int] | None = None
    ) -> list[Caption]:
        """The captions of features [N, *shape] as the run's table holds them.

        Args:
            features: float array [N, *shape].
            decoding: GenerationConfig or None. How captions are chosen; None says the likeliest next word.
            numbers: sequence of int or None. Which image of a longer request each is: it decides what is drawn for it.
        """
        places = range(len(features)) if numbers is None else numbers
        decoded = self._decoder(decoding or self.decoding())(features, places)
        return [self._captions(decoded, image) for image in range(len(features))]

    def _decoder(self, decoding: GenerationConfig) -> "AutoregressiveDecoder":
        from trainer.decoding.factory import make_decoder

        if decoding not in self._decoders:
            self._decoders[decoding] = make_decoder(self.model, decoding)
        return self._decoders[decoding]

    def _captions(self, decoded: GenerationOutput, image: int) -> Caption:
        seen = decoded.attention
        best, *others = [
            self._caption(words, score, None if seen is None else seen[image, place])
            for place, (words, score) in enumerate(zip(decoded.tokens[image], decoded.scores[image], strict=True))
            if place == 0 or score > IMPOSSIBLE
        ]
        return replace(best, others=tuple(others))

    def _caption(self, ids: NDArray[np.int32], score: float, attention: NDArray[np.float32] | None) -> Caption:
        text = detokenize(ids, self.vocabulary)
        words = tuple(text.split(" ")) if text else ()
        return Caption(text, words, float(score), None if attention is None else attention[: len(words)])
