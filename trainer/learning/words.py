"""Learning words: what a recognizer's run learns from, and what its epochs are judged by: words that are all right."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import tensorflow as tf
from matplotlib.figure import Figure

from features.keras_settings import keras
from trainer.inputs.augmentation import Augmentation
from trainer.inputs.feeding import reading
from trainer.inputs.labelled import WordData
from trainer.inputs.tables import LabelledTables
from trainer.inputs.word_batches import WordReader, sampled_order, shuffled_order
from trainer.learning.compiling import compile_model, making
from trainer.learning.epochs import Epoch
from trainer.learning.figures import RecognizerFigures
from trainer.learning.warming import WarmStart
from trainer.plots import words_figure
from trainer.recognizers.recognizer import Recognizer
from trainer.runs.records import RecognizerRecord

_HELD_OUT_BATCH = 256


class WordLesson:
    """Words in images; a `trainer.learning.epochs.Lesson`.

    Args:
        root: Path. The run directory.
        record: RecognizerRecord. What the run is.
        tables: LabelledTables. Where pixels come from.
        data: WordData. Images and words.
        warm: WarmStart or None. The run that it begins with.
    """

    unit = "images"
    figures = RecognizerFigures

    def __init__(
        self,
        root: Path,
        record: RecognizerRecord,
        tables: LabelledTables,
        data: WordData,
        warm: WarmStart | None = None,
    ) -> None:
        self.root = root
        self.record = record
        self.data = data
        self._warm = warm
        self.config = record.training
        self.steps = self.config.steps_per_epoch or -(-len(data.train) // self.config.batch_size)
        longest = record.config.max_label_length
        self._reader = WordReader(data.train, tables.features, longest)
        self._augmentation = Augmentation(
            seed=self.config.seed,
            shift=self.config.augment_translation,
            zoom=self.config.augment_zoom,
            colour=self.config.augment_color_jitter,
            hue=self.config.augment_channel_permutation,
            cover=self.config.augment_random_erasing,
        )
        self._held_out = None
        if record.validation_split:
            read = data.splits[record.validation_split].first(self.config.num_validation_images)
            self._held_out = WordReader(read, tables.features, longest)

    def compiled(self) -> tuple[Recognizer, list[keras.Metric]]:
        """As `trainer.learning.epochs.Lesson` has it."""
        with making(self.config):
            model = self.record.build(self.root)
            compile_model(model, self.config, self.steps)
        return model, [model.head_loss, model.word_accuracy]

    def begin(self, model: Recognizer) -> None:
        """As `trainer.learning.epochs.Lesson` has it."""
        if self._warm:
            self._warm.put_into(model, self.record, self.root)

    def epoch(self, number: int) -> Epoch:
        """As `trainer.learning.epochs.Lesson` has it."""
        size, seed, images = self.config.batch_size, self.config.seed, len(self.data.train)
        if self.config.steps_per_epoch:
            order = sampled_order(images, size, seed, number, self.steps)
        else:
            order = shuffled_order(images, size, seed, number)
        change = self._augmentation.of_epoch(number)
        return Epoch(records=order.size, batches=lambda first: self._reader.dataset(order, first, change))

    def held_out(self) -> tf.data.Dataset | None:
        """As `trainer.learning.epochs.Lesson` has it."""
        return self._held_out.everything(_HELD_OUT_BATCH) if self._held_out else None

    def judge(self) -> dict[str, float]:
        """Nothing: what is measured says it all."""
        return {}

    def show(self, epoch: int) -> None:
        """Nothing: words are right or wrong."""

    def reading(self) -> AbstractContextManager[None]:
        """As `trainer.learning.epochs.Lesson` has it."""
        return reading(self._reader, self._held_out)

    def plot(self, history: Sequence[RecognizerFigures]) -> Figure:
        """As `trainer.learning.epochs.Lesson` has it."""
        return words_figure(history)

    def told(self) -> dict[str, Any]:
        """As `trainer.learning.epochs.Lesson` has it."""
        return {
            "images": {split: len(images) for split, images in self.data.splits.items()},
            "without_label": self.data.without_label,
            "without_features": self.data.without_features,
        }
