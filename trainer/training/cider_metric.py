"""Judges: how good a captioner is by what it says of the validation split, while it is still being trained."""

from features.text.vocabulary import detokenize
from trainer.data.held_out_images import load_held_out_images
from trainer.data.table_selection import TrainingTables
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.metrics import Scorer, cider_d
from trainer.models.captioner import Captioner

_BATCH = 64


class CiderMetric:
    """CIDEr-D of greedy captions, against all that people said of each image, with the plain tokenizer.

    Args:
        model: Captioner. Judged with the weights that it has at the time.
        tables: Tables. Where the images' features and captions are.
        split: str. Which images.
        max_new_tokens: int. Tokens at most, the end token too.

    Raises:
        CaptError: pycocoevalcap is not installed.
    """

    def __init__(self, model: Captioner, tables: TrainingTables, split: str, max_new_tokens: int) -> None:
        Scorer()  # says now, not after an epoch, that it cannot score
        self._images = load_held_out_images(tables, split)
        self._features = tables.features
        self._words = tables.texts[0].vocabulary()
        self._decode = make_decoder(model, GenerationConfig(max_new_tokens=max_new_tokens))

    def __call__(self) -> float:
        """The score, 0 to 10; as `trainer.metrics` has it."""
        rows = self._images.rows
        said = [
            detokenize(words, self._words)
            for start in range(0, len(rows), _BATCH)
            for words in self._decode(self._features.read(rows[start : start + _BATCH])).tokens[:, 0]
        ]
        return cider_d(dict(zip(self._images.names, said, strict=True)), self._images.references)
