"""Samples: what the captioner says of a few fixed images after each epoch, beside what people said of them."""

import logging
from collections.abc import Sequence

import numpy as np

from features.text.vocabulary import detokenize
from trainer.data.caption_batches import BatchReader
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.models.captioner import Captioner

_log = logging.getLogger("capt.training")


class SampleLogger:
    """Captions of a few images of a split, always the same ones.

    Args:
        model: Captioner. Built; captioned with the weights that it has at the time.
        reader: BatchReader. The split.
        vocabulary: sequence of str. The words by id.
        count: int. Images, spread over the split; 0 for none.
        max_new_tokens: int. Tokens at most, the end token too.
    """

    def __init__(
        self, model: Captioner, reader: BatchReader, vocabulary: Sequence[str], count: int, max_new_tokens: int
    ) -> None:
        captions = reader.captions
        images = np.unique(np.linspace(0, len(captions.rows) - 1, count).astype(np.int64))
        self._features = reader.read_images(images) if count else None
        self._vocabulary = vocabulary
        self._told = [self._text(captions.tokens_of(first)) for first in captions.first[images]]
        self._decoder = make_decoder(model, GenerationConfig(max_new_tokens=max_new_tokens))

    def show(self, epoch: int) -> None:
        """Log a line an image."""
        if self._features is None:
            return
        for ids, told in zip(self._decoder(self._features).tokens[:, 0], self._told, strict=True):
            _log.info("epoch %d: “%s” for “%s”", epoch, self._text(ids), told)

    def _text(self, ids: Sequence[int]) -> str:
        return detokenize(ids, self._vocabulary)
