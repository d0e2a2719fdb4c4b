"""Generates captions with a trained captioner.

image → extractor and storage dtype of the run's feature table → decoder → caption
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.extraction import EncodedImage
from features.text.vocabulary import detokenize, read_vocabulary
from schemas.errors import CorruptFileError, RecordError, StoreError, UsageError
from trainer.decoding.generation import IMPOSSIBLE, GenerationConfig, GenerationOutput, parse_generation
from trainer.models.model_specs import MODELS
from trainer.runs.directory import VOCABULARY
from trainer.runs.metadata import CaptionerMetadata
from trainer.runs.run import ImageLike, Run, single_result, to_encoded_images

if TYPE_CHECKING:
    from trainer.decoding.decoding_loop import AutoregressiveDecoder
    from trainer.models.captioner import Captioner


@dataclass(frozen=True)
class Caption:
    """A generated caption.

    Args:
        text: The words, joined by spaces.
        words: The words.
        score: Log-probability (natural logarithm) of the caption, the end token included.
        attention: Attention weights float32 [words, locations]; None for models without attention.
        others: Further captions, best first, if several were requested.
    """

    text: str
    words: tuple[str, ...]
    score: float
    attention: NDArray[np.floating[Any]] | None
    others: tuple["Caption", ...] = ()


class CaptionerRun(Run):
    """A trained captioner; open it with `trainer.runs.run.load_run`.

    Example:
        caption = load_run("runs/first").caption("dog.jpg")
        print(caption.text)
    """

    metadata: CaptionerMetadata
    model: "Captioner"

    def __init__(self, path: Path, metadata: CaptionerMetadata) -> None:
        super().__init__(path, metadata)
        self._decoders: dict[GenerationConfig, AutoregressiveDecoder] = {}
        if metadata.source is None and metadata.model not in MODELS:
            raise StoreError(f"this version of capt does not have the model {metadata.model!r}", location=str(path))

    @cached_property
    def vocabulary(self) -> list[str]:
        """The tokens by ID; 0 to 3 are the special tokens."""
        path = self.path / VOCABULARY
        tokens = read_vocabulary(path)
        expected = self.metadata.vocab_size
        if len(tokens) != expected:
            raise CorruptFileError(
                f"the vocabulary is corrupt: expected {expected} tokens, got {len(tokens)}", location=str(path)
            )
        return tokens

    def check_files(self) -> None:
        _ = self.vocabulary

    def decoding(self, *, bad_words: Sequence[str] = (), **options: Any) -> GenerationConfig:
        """Returns the config of caption generation; without options, the config of greedy decoding.

        Args:
            bad_words: Words of the vocabulary that are never generated.
            **options: Fields of `GenerationConfig`. None selects the default.

        Raises:
            UsageError: An option is unknown or out of range, or a word is not in the vocabulary.
        """
        if unknown := [word for word in bad_words if word not in self.vocabulary]:
            raise UsageError(f"{unknown[0]!r} is not in the vocabulary of the run", location="--bad-words")
        if options.get("max_new_tokens") is None:
            options["max_new_tokens"] = self.metadata.max_new_tokens
        return parse_generation({"bad_word_ids": tuple(map(self.vocabulary.index, bad_words)), **options})

    def caption(self, image: ImageLike, decoding: GenerationConfig | None = None) -> Caption:
        """Captions one image: a path, encoded bytes, or a PIL image.

        Raises:
            RecordError: The image cannot be read, decoded or extracted.
        """
        return single_result(self.caption_many([image], decoding))

    def caption_many(
        self, images: Iterable[ImageLike], decoding: GenerationConfig | None = None
    ) -> Iterator[Caption | RecordError]:
        """Captions images in order. A failed image yields its error; processing continues."""
        return self.caption_encoded(to_encoded_images(images), decoding)

    def caption_encoded(
        self, images: Iterable[EncodedImage], decoding: GenerationConfig | None = None, first: int = 0
    ) -> Iterator[Caption | RecordError]:
        """Captions encoded images in batches, in order.

        Args:
            images: The images.
            decoding: The config of caption generation; None for greedy decoding.
            first: Number of the first image in a longer sequence, which seeds its random samples.
        """
        return self._predict(
            images, lambda features, numbers: self.caption_features(features, decoding, numbers), first
        )

    def caption_features(
        self, features: NDArray[Any], decoding: GenerationConfig | None = None, numbers: Sequence[int] | None = None
    ) -> list[Caption]:
        """Captions features [N, *shape] of the run's feature table.

        Args:
            features: float [N, *shape].
            decoding: The config of caption generation; None for greedy decoding.
            numbers: Number of each image in a longer sequence, which seeds its random samples.
        """
        from trainer.decoding.factory import make_decoder

        config = decoding or self.decoding()
        if config not in self._decoders:
            self._decoders[config] = make_decoder(self.model, config)
        output = self._decoders[config](features, range(len(features)) if numbers is None else numbers)
        return [self._to_caption(output, image) for image in range(len(features))]

    def predict_texts(self, features: NDArray[Any]) -> list[str]:
        """Predicts one caption per image by greedy decoding."""
        return [caption.text for caption in self.caption_features(features)]

    def _to_caption(self, output: GenerationOutput, image: int) -> Caption:
        captions = []
        for rank, (ids, score) in enumerate(zip(output.tokens[image], output.scores[image], strict=True)):
            if rank == 0 or score > IMPOSSIBLE:
                text = detokenize(ids, self.vocabulary)
                words = tuple(text.split(" ")) if text else ()
                attention = None if output.attention is None else output.attention[image, rank][: len(words)]
                captions.append(Caption(text, words, float(score), attention))
        return replace(captions[0], others=tuple(captions[1:]))
