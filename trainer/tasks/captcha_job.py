"""Provides data, model and metrics of a CAPTCHA recognizer to the training loop."""

import logging
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import NDArray

from features.io.atomic_files import write
from features.runtime.keras_settings import keras
from trainer.config import RecognizerTraining
from trainer.data.captcha_data import LabelledImages
from trainer.data.label_limits import LabelLimits, check_time_steps
from trainer.data.labelled_batches import LabelledBatchReader, mix_datasets, shuffle_images
from trainer.models.custom_models import check_recognizer
from trainer.models.recognizer import Recognizer
from trainer.reports.plots import recognizer_figure
from trainer.runs.checkpoints import Checkpoints
from trainer.runs.directory import CHECKPOINTS, LABELS, write_metadata
from trainer.runs.epoch_metrics import EpochMetrics
from trainer.runs.metadata import RecognizerMetadata, read_metadata
from trainer.runs.recognizer_run import RecognizerRun
from trainer.tasks.calibration import calibrate, max_images
from trainer.training.compile_model import build_scope, compile_model
from trainer.training.training_job import Epoch, TrainingJob
from trainer.training.warm_start import Vocabulary, copy_weights

_VALIDATION_BATCH = 256

_log = logging.getLogger("capt.training")


class CaptchaJob(TrainingJob[RecognizerTraining, LabelledImages]):
    """Trains a CAPTCHA recognizer; arguments as in `TrainingJob`."""

    unit = "images"
    metric_names = ("loss", "exact_match")
    metadata: RecognizerMetadata

    # Opening a reader may download shards, so it follows the checks of the run directory.
    @cached_property
    def _train(self) -> LabelledBatchReader:
        return self._open_reader(self.data.train)

    @cached_property
    def _validation(self) -> LabelledBatchReader | None:
        images = self._validation_images
        return self._open_reader(images.select(self._limits.allows(images.labels))) if images else None

    @property
    def _validation_images(self) -> LabelledImages | None:
        split, limit = self.data.validation_split, self.config.num_validation_images
        return self.data.splits[split].first(limit) if split else None

    @property
    def steps_per_pass(self) -> int:
        return -(-len(self.data.train) // self.config.batch_size)

    @property
    def readers(self) -> tuple[LabelledBatchReader | None, ...]:
        return self._train, self._validation

    def make_metadata(self) -> RecognizerMetadata:
        formats = [dataset.label_format for dataset in self.tables.datasets if dataset.label_format]
        return RecognizerMetadata(
            model=self.hyperparameters.model,
            num_images=len(self.data.train),
            num_labels=len(set(self.data.train.labels)),
            folded_datasets=tuple(dataset.name for dataset in self.tables.datasets if dataset.fold_case),
            label_format=formats[0] if formats else None,
            **self.common_metadata(),
        )

    def write_files(self) -> None:
        labels = sorted(set(self.data.train.labels))
        write(self.root / LABELS, "".join(f"{label}\n" for label in labels).encode())
        super().write_files()
        if self.metadata.source:
            check_recognizer(self.metadata.build(self.root), self.metadata.model, self.metadata.features.shape)

    def compile_model(self) -> tuple[Recognizer, list[keras.Metric]]:
        with build_scope(self.config):
            model = self.metadata.build(self.root)
            compile_model(model, self.config, self.steps)
        self._positions = self._count_positions(model)
        self._limits = self._find_limits(self._positions["ctc"])
        return model, [model.head_loss, model.exact_match]

    def initialize(self, model: Recognizer) -> None:
        if self.warm_start:
            assert isinstance(self.warm_start, RecognizerRun)
            copy_weights(self.warm_start, model, self.root, self._compare_vocabularies(self.warm_start))

    def _compare_vocabularies(self, run: RecognizerRun) -> tuple[Vocabulary, Vocabulary]:
        """Returns the classes and the positions of the labels of another run and of this one."""
        old, new = run.metadata.config, self.metadata.config
        before, after = old.characters.characters, new.characters.characters
        other = next(one for one in map(chr, range(0x110000)) if one not in after)
        more_classes = self._change_config(charset="".join(sorted((*after, other))))
        more_positions = self._change_config(max_label_length=new.num_positions + 1)
        return (
            Vocabulary(("blank", *before), ("blank", *after), more_classes),
            Vocabulary(range(old.num_positions), range(new.num_positions), more_positions),
        )

    def _change_config(self, **values: Any) -> RecognizerMetadata:
        return self.metadata.model_copy(update={"architecture": {**self.metadata.architecture, **values}})

    def epoch(self, number: int) -> Epoch:
        order = self._order_images(number)
        augment = self.augmentation.for_epoch(number) if self.augmentation else None
        return Epoch(order.size, lambda first: self._train.dataset(order, first, augment))

    def _order_images(self, epoch: int) -> NDArray[np.int64]:
        config, steps = self.config, self.config.steps_per_epoch
        if config.dataset_weights:
            numbers = {dataset.name: number for number, dataset in enumerate(self.tables.datasets)}
            datasets = np.array([numbers[dataset] for dataset, _ in self.data.train.names])
            return mix_datasets(datasets, config.dataset_weights, config.batch_size, config.seed, epoch, steps)
        return shuffle_images(len(self.data.train), config.batch_size, config.seed, epoch, steps)

    def validation_batches(self) -> tf.data.Dataset | None:
        return self._validation.all_images(_VALIDATION_BATCH) if self._validation else None

    def derived_metrics(self, epoch: int, metrics: dict[str, float]) -> dict[str, float]:
        """Counts the validation labels that the recognizer cannot output as wrong; the loss is that of the others."""
        if "val_exact_match" not in metrics or self._validation_images is None:
            return {}
        fraction = self._limits.allows(self._validation_images.labels).mean()
        return {"val_exact_match": metrics["val_exact_match"] * float(fraction)}

    def finish(self) -> dict[str, Any]:
        """Calibrates the confidence of the best epoch on the validation images, unless the run has this calibration."""
        images, checkpoint = self._calibration_images, Checkpoints(self.root / CHECKPOINTS).find()
        metadata = read_metadata(self.root)
        assert isinstance(metadata, RecognizerMetadata)
        calibration = metadata.calibration
        # Another machine would compute slightly other values.
        if calibration is None or (calibration.checkpoint, calibration.images) != (checkpoint, len(images or ())):
            run = RecognizerRun(self.root, self.metadata)
            calibration = calibrate(run, self.tables.features, images, checkpoint)
            metadata = self.metadata.model_copy(update={"calibration": calibration})
            write_metadata(self.root, metadata)
        run = RecognizerRun(self.root, metadata)
        _log.log(logging.INFO if run.is_calibrated else logging.WARNING, run.confidence_note)
        return {"calibration": calibration.model_dump(exclude={"checkpoint"})}

    @property
    def _calibration_images(self) -> LabelledImages | None:
        config, images = self.metadata.config, self._validation_images
        num_logits = self._positions[config.head] * config.characters.num_classes
        return images.first(max_images(num_logits)) if images else None

    def summary(self) -> dict[str, Any]:
        unreadable = {
            split: len(images) - int(self._limits.allows(images.labels).sum())
            for split, images in self.data.splits.items()
        }
        return {**super().summary(), "unrecognizable_labels": unreadable}

    def monitored(self, metrics: dict[str, float]) -> tuple[float, ...]:
        if "val_exact_match" in metrics:
            return -metrics["val_exact_match"], metrics["val_loss"]
        return -metrics["exact_match"], metrics["loss"]

    @staticmethod
    def plot(history: Sequence[EpochMetrics], *, from_zero: bool = False) -> Figure:
        return recognizer_figure(history, from_zero=from_zero)

    def _open_reader(self, images: LabelledImages) -> LabelledBatchReader:
        config = self.metadata.config
        targets = images.encode(config.characters, config.num_positions)
        return LabelledBatchReader(self.tables.features, images.rows, targets)

    def _count_positions(self, model: Recognizer) -> dict[str, int]:
        """Returns the number of time steps or positions of each head."""
        config, shape = self.metadata.config, self.tables.features.shape
        if self.metadata.source:
            outputs = model(np.zeros((1, *shape), np.uint8))
            return {head: logits.shape[1] for head, logits in outputs.items()}
        return {"ctc": config.count_time_steps(shape[1]), "attention": config.num_positions}

    def _find_limits(self, time_steps: int) -> LabelLimits:
        """Returns what the model can output; UsageError if it has too few time steps for a train label."""
        config, shape = self.metadata.config, self.tables.features.shape
        if self.metadata.source:
            pixels = shape[1] / time_steps
            check_time_steps(self.data.train.labels, shape[1], time_steps, lambda steps: math.ceil(steps * pixels))
        return LabelLimits(config.characters, config.num_positions, time_steps)
