"""Generates captions with a trained captioner.

image → extractor and storage dtype of the run's feature table → decoder → caption
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.extraction import EncodedImage
from features.images.decode import open_image
from features.images.resize import Resizer
from features.text.vocabulary import detokenize, read_vocabulary
from schemas.choices import AttentionScale, AttentionStyle
from schemas.errors import CaptError, CorruptFileError, RecordError, StoreError, UsageError
from schemas.table_config import END, PAD, SPECIAL_TOKENS, START
from trainer.decoding.generation import IMPOSSIBLE, GenerationConfig, GenerationOutput, parse_generation
from trainer.models.model_specs import MODELS
from trainer.runs.directory import VOCABULARY
from trainer.runs.metadata import CaptionerMetadata
from trainer.runs.run import ImageLike, Run, single_result, to_encoded_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from trainer.decoding.decoding_loop import AutoregressiveDecoder
    from trainer.figures.attention_maps import AttentionMaps
    from trainer.models.captioner import Captioner

_MAX_DECODERS = 32  # compiled functions that are kept, one per config of caption generation
_ANY_SEED = 0  # one compiled function serves all seeds
_MAX_PIXELS = 600  # of the longer side of an image in a figure


@dataclass(frozen=True)
class CaptionedImage:
    """The image of a caption, and the run that generated it. The image is read again when it is needed."""

    run: "CaptionerRun"
    image: EncodedImage

    def open_visible(self) -> "Image.Image":
        """Returns the part of the image that the model received, in at most 600 × 600 pixels."""
        return open_visible(self.image.read(), self.run.resizer, _MAX_PIXELS)


@dataclass(frozen=True)
class Caption:
    """A generated caption.

    Args:
        text: The words, joined by spaces.
        words: The words.
        score: Log-probability (natural logarithm) of the caption, the end token included.
        attention: Attention weights float32 [words, locations]; None for models without attention.
        others: Further captions, best first, if several were requested.
        end_attention: Attention weights float32 [locations] of the end token; None without attention, or if the caption
            has no end token because it reached its maximum length.
        source: The image; None if the caption was generated from features.
    """

    text: str
    words: tuple[str, ...]
    score: float
    attention: NDArray[np.floating[Any]] | None
    others: tuple["Caption", ...] = ()
    end_attention: NDArray[np.floating[Any]] | None = None
    source: CaptionedImage | None = field(default=None, repr=False, compare=False)

    def figure(
        self,
        *,
        style: AttentionStyle = "smooth",
        scale: AttentionScale = "word",
        heads: bool = False,
        image: "Image.Image | None" = None,
    ) -> "Figure":
        """Plots the image with the caption and, if the model has attention, one map per word and for the end token.

        A notebook shows the figure if it is the value of a cell.

        Args:
            style: `smooth`, or `grid` for one gray rectangle per location.
            scale: Largest value of the color scale, which begins at 0: `word`, the maximum of each map; or `caption`,
                the maximum of all maps.
            heads: One row of maps per layer and head instead of their mean.
            image: The part of the image that the model received; None for the captioned image.

        Raises:
            CaptError: The caption was generated from features and `image` is None, or the maps are not square.
            UsageError: `style` or `scale` is unknown, or `heads` is set and the model has no attention.
        """
        image = image or self._require_source().open_visible()
        return self.plot_maps(image, style, scale, heads).figure()

    def attention_by_head(self) -> NDArray[np.float32]:
        """Computes the attention weights of every layer and head.

        Returns:
            float32 [layers, heads, words, locations], with a last row for the end token if it was generated. Their mean
            over layers and heads is `attention`, then `end_attention`.

        Raises:
            CaptError: The caption was generated from features.
            UsageError: The model has no attention.
        """
        source = self._require_source()
        return source.run.compute_attention(source.image, self)

    def plot_maps(
        self,
        image: "Image.Image",
        style: AttentionStyle = "smooth",
        scale: AttentionScale = "word",
        heads: bool = False,
    ) -> "AttentionMaps":
        """Returns the attention maps, to be drawn over the visible part of the image; none without attention."""
        from trainer.figures.attention_maps import AttentionMaps

        words, weights = self.words, self.attention
        if self.end_attention is not None and weights is not None:
            words, weights = (*words, SPECIAL_TOKENS[END]), np.concatenate([weights, self.end_attention[None]])
        if heads:
            weights = self.attention_by_head()
        if weights is None:
            words, weights = (), np.zeros((0, 1), np.float32)
        return AttentionMaps(image, self.text, words, weights, style, scale)

    def _require_source(self) -> CaptionedImage:
        if self.source is None:
            raise CaptError("the caption was generated from features, so its image is unknown")
        return self.source


class CaptionerRun(Run):
    """A trained captioner; open it with `trainer.runs.run.load_run`.

    Example:
        caption = load_run("runs/first").caption("dog.jpg")
        print(caption.text)
    """

    metadata: CaptionerMetadata
    model: "Captioner"

    def __init__(self, path: Path, metadata: CaptionerMetadata, epoch: int | None = None) -> None:
        super().__init__(path, metadata, epoch)
        self._make_decoder = lru_cache(_MAX_DECODERS)(self._compile_decoder)
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
        self,
        images: Iterable[EncodedImage],
        decoding: GenerationConfig | None = None,
        numbers: Iterable[int] | None = None,
    ) -> Iterator[Caption | RecordError]:
        """Captions encoded images in batches, in order.

        Args:
            images: The images.
            decoding: The config of caption generation; None for greedy decoding.
            numbers: Number of each image in its sequence, which seeds its random samples; None for 0, 1, ….
        """
        pending: deque[EncodedImage] = deque()
        results = self._predict(
            _append_each(images, pending),
            lambda features, batch_numbers: self.caption_features(features, decoding, batch_numbers),
            numbers,
        )
        for result in results:
            source = CaptionedImage(self, pending.popleft())
            yield result if isinstance(result, RecordError) else _with_source(result, source)

    def caption_features(
        self, features: NDArray[Any], decoding: GenerationConfig | None = None, numbers: Sequence[int] | None = None
    ) -> list[Caption]:
        """Captions features [N, *shape] of the run's feature table.

        Args:
            features: float [N, *shape].
            decoding: The config of caption generation; None for greedy decoding.
            numbers: Number of each image in a longer sequence, which seeds its random samples.
        """
        config = decoding or self.decoding()
        decoder = self._make_decoder(config.model_copy(update={"seed": _ANY_SEED}))
        output = decoder(features, range(len(features)) if numbers is None else numbers, config.seed)
        return [self._to_caption(output, image) for image in range(len(features))]

    def compute_attention(self, image: EncodedImage, caption: Caption) -> NDArray[np.float32]:
        """Returns the attention weights of a caption, float32 [layers, heads, words, locations].

        A last row is for the end token if it was generated.

        Raises:
            RecordError: The image cannot be read, decoded or extracted.
            UsageError: The model has no attention.
        """
        if caption.attention is None:
            raise UsageError("the run's model has no attention", location=str(self.path))
        tokens = [START, *map(self.vocabulary.index, caption.words)]
        given = np.array([tokens if caption.end_attention is not None else tokens[:-1]], np.int32)
        from features.runtime.keras_settings import ops

        def compute(features: NDArray[Any], _: Sequence[int]) -> list[NDArray[np.float32]]:
            return list(ops.convert_to_numpy(self.model.compute_attention(features, given)))

        results = self._predict([image], compute)
        return single_result(results)

    def score_words(
        self, images: Iterable[tuple[EncodedImage, Sequence[str]]]
    ) -> Iterator[NDArray[np.float32] | RecordError]:
        """Computes the log-probability of each word of given captions, in order; a failed image yields its error.

        Args:
            images: Images with the words of a caption, all in the vocabulary.

        Yields:
            float32 [words], natural logarithms. Each word follows the given words before it.
        """
        pending: dict[int, Sequence[str]] = {}

        def read() -> Iterator[EncodedImage]:
            for number, (image, words) in enumerate(images):
                pending[number] = words
                yield image

        results = self._predict(
            read(), lambda features, numbers: self._score_words(features, [pending[number] for number in numbers])
        )
        for number, result in enumerate(results):
            del pending[number]
            yield result

    def predict_texts(self, features: NDArray[Any]) -> list[str]:
        """Predicts one caption per image by greedy decoding."""
        return [caption.text for caption in self.caption_features(features)]

    def _compile_decoder(self, config: GenerationConfig) -> "AutoregressiveDecoder":
        from trainer.decoding.factory import make_decoder

        return make_decoder(self.model, config)

    def _score_words(self, features: NDArray[Any], captions: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        from features.runtime.keras_settings import ops

        ids = [[self.vocabulary.index(word) for word in words] for words in captions]
        # The last word is predicted and not an input.
        tokens = np.full((len(ids), max(1, *map(len, ids))), PAD, np.int32)
        for row, caption in zip(tokens, ids, strict=True):
            given = [START, *caption[:-1]]
            row[: len(given)] = given
        logits = self.model({"features": features, "tokens": tokens}, training=False)
        scores = np.asarray(ops.convert_to_numpy(ops.log_softmax(ops.cast(logits, "float32"))))
        return [row[np.arange(len(caption)), caption] for row, caption in zip(scores, ids, strict=True)]

    def _to_caption(self, output: GenerationOutput, image: int) -> Caption:
        captions = []
        for rank, (ids, score) in enumerate(zip(output.tokens[image], output.scores[image], strict=True)):
            if rank == 0 or score > IMPOSSIBLE:
                text = detokenize(ids, self.vocabulary)
                words = tuple(text.split(" ")) if text else ()
                attention, end_attention = _split_attention(output, image, rank, len(words))
                captions.append(Caption(text, words, float(score), attention, end_attention=end_attention))
        return replace(captions[0], others=tuple(captions[1:]))


def open_visible(data: bytes, resizer: Resizer, max_pixels: int) -> "Image.Image":
    """Decodes an image, and returns the part that the model receives; the image's longer side has at most N pixels."""
    image = open_image(data)
    image.thumbnail((max_pixels, max_pixels))
    return resizer.crop_visible(image)


def _split_attention(
    output: GenerationOutput, image: int, rank: int, words: int
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Returns the attention weights of the words, and those of the end token if it was generated."""
    if output.attention is None:
        return None, None
    weights, tokens = output.attention[image, rank], output.tokens[image, rank]
    return weights[:words], weights[words] if words < len(tokens) and tokens[words] == PAD else None


def _with_source(caption: Caption, source: CaptionedImage) -> Caption:
    return replace(caption, source=source, others=tuple(replace(one, source=source) for one in caption.others))


def _append_each(images: Iterable[EncodedImage], pending: deque[EncodedImage]) -> Iterator[EncodedImage]:
    for image in images:
        pending.append(image)
        yield image
