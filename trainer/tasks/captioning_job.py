"""Provides data, model and metrics of a captioner to the training loop."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import NDArray

from features.io.atomic_files import write
from features.runtime.keras_settings import keras
from features.text.vocabulary import write_vocabulary
from trainer.config import CaptionerTraining
from trainer.data.caption_batches import BatchReader
from trainer.data.caption_data import Captions
from trainer.data.caption_order import Order, shuffle_captions, sort_captions, steps_per_epoch
from trainer.models.backbone import Backbone, open_backbone
from trainer.models.captioner import Captioner
from trainer.models.custom_models import check_captioner
from trainer.models.losses import CrossEntropy, MaskedAccuracy, MaskedCrossEntropy
from trainer.models.model_specs import ModelSpec, model_spec
from trainer.reports.plots import loss_figure
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.directory import TRANSFORM, VOCABULARY, copy_tree
from trainer.runs.epoch_metrics import EpochMetrics
from trainer.runs.metadata import EXTRACTOR, CaptionerMetadata, ExtractorOrigin
from trainer.training.caption_validation import CiderMetric
from trainer.training.compile_model import build_scope, compile_model
from trainer.training.sample_captions import SampleLogger, extract_sample_images, select_validation_samples
from trainer.training.training_job import Epoch, TrainingJob
from trainer.training.warm_start import Vocabulary, copy_weights

_NORMALIZATION_IMAGES = 256
_SENTENCE_TOKENS = 2  # start and end token


class CaptioningJob(TrainingJob[CaptionerTraining, Captions]):
    """Trains a captioner; arguments as in `TrainingJob`."""

    unit = "captions"
    metric_names: tuple[str, ...] = ("loss", "token_accuracy")
    metadata: CaptionerMetadata

    @property
    def _spec(self) -> ModelSpec:
        return model_spec(self.hyperparameters.model, self.hyperparameters.source)

    @cached_property
    def _backbone(self) -> Backbone | None:
        spec, table_config = self._spec, self.tables.features.table_config
        return open_backbone(self.config, spec, table_config) if self.config.extractor else None

    @cached_property
    def vocabulary(self) -> list[str]:
        return self.tables.caption_tables[0].vocabulary()

    # Opening a reader may download shards, so it follows the checks of the run directory.
    @cached_property
    def _train(self) -> BatchReader:
        return self._open_reader(self.data.train)

    @cached_property
    def _validation(self) -> BatchReader | None:
        split, limit = self.data.validation_split, self.config.num_validation_images
        return self._open_reader(self.data.splits[split].limit_images(limit)) if split else None

    @property
    def steps_per_pass(self) -> int:
        return steps_per_epoch(self.data.train, self.config.batch_size, self.config.captions_per_image)

    @property
    def readers(self) -> tuple[BatchReader | None, ...]:
        return self._train, self._validation

    def make_metadata(self) -> CaptionerMetadata:
        origin = None
        if backbone := self._backbone:
            origin = ExtractorOrigin(table_config=backbone.table_config, shape=backbone.function.shape)
        return CaptionerMetadata(
            model=self.hyperparameters.model,
            vocab_size=len(self.vocabulary),
            max_new_tokens=self.config.max_new_tokens or self.data.train.max_length + 1,
            extractor=origin,
            **self.common_metadata(),
        )

    def write_files(self) -> None:
        write_vocabulary(self.root / VOCABULARY, self.vocabulary)
        copy_tree(self.tables.caption_tables[0].transform_path, self.root / TRANSFORM)
        super().write_files()
        if self._backbone:
            write(self.root / EXTRACTOR, self._backbone.serialize())
        if self.metadata.source:
            check_captioner(self.metadata.build(self.root), self.metadata.model, self.metadata.features.shape)

    def compile_model(self) -> tuple[Captioner, list[keras.Metric]]:
        with build_scope(self.config):
            model = self.metadata.build(self.root)
            slow = model.feature_normalization.network.trainable_variables if self._backbone else ()
            self._ignored_ids = model.ignored_ids
            metrics = [CrossEntropy(model.ignored_ids), MaskedAccuracy(model.ignored_ids)]
            multiplier = self.config.extractor_lr_multiplier
            compile_model(model, self.config, self.steps, self.make_loss(model), metrics, slow, multiplier)
        self._samples = self._make_sample_logger(model)
        self._cider = self._make_cider_metric(model) if self.config.monitor == "val_cider_d" else None
        return model, metrics

    def make_loss(self, model: Captioner) -> keras.losses.Loss:
        """Returns the loss of a training step, without the terms that the model adds."""
        return MaskedCrossEntropy(self.config.label_smoothing, model.ignored_ids)

    def initialize(self, model: Captioner) -> None:
        if self._backbone:
            model.feature_normalization.network.set_weights(self._backbone.function.model.get_weights())
        counts = np.bincount(self.data.train.tokens, minlength=len(self.vocabulary))
        model.adapt(self._train.sample(_NORMALIZATION_IMAGES), counts)
        if self.warm_start:
            run = self.warm_start
            assert isinstance(run, CaptionerRun)
            larger = self.metadata.model_copy(update={"vocab_size": self.metadata.vocab_size + 1})
            copy_weights(run, model, self.root, [Vocabulary(run.vocabulary, self.vocabulary, larger)])

    def epoch(self, number: int) -> Epoch:
        order, size = self._order(number), self.config.batch_size
        augment = self.augmentation.for_epoch(number) if self.augmentation else None
        return Epoch(sum(map(len, order)), lambda first: self._train.dataset(order, size, first, augment))

    def validation_batches(self) -> tf.data.Dataset | None:
        if self._validation is None:
            return None
        size = self.config.batch_size
        return self._validation.dataset(sort_captions(self._validation.captions, size), size)

    def extra_validation_metrics(self) -> dict[str, float]:
        return {"cider_d": self._cider()} if self._cider else {}

    def monitored(self, metrics: dict[str, float]) -> tuple[float, ...]:
        return (-metrics["val_cider_d"],) if "val_cider_d" in metrics else super().monitored(metrics)

    def derived_metrics(self, epoch: int, metrics: dict[str, float]) -> dict[str, float]:
        if not self.config.padded_loss:
            return {}
        train = self.data.train
        derived = {"padded_loss": metrics["loss"] * self._filled_fraction(train, np.concatenate(self._order(epoch)))}
        if self._validation:
            captions = self._validation.captions
            derived["val_padded_loss"] = metrics["val_loss"] * self._filled_fraction(captions, np.arange(len(captions)))
        return derived

    def log_samples(self, epoch: int) -> None:
        self._samples.log(epoch)

    @staticmethod
    def plot(history: Sequence[EpochMetrics], *, from_zero: bool = False) -> Figure:
        return loss_figure(history, from_zero=from_zero)

    def _order(self, epoch: int) -> Order:
        config = self.config
        sizes = (config.batch_size, config.seed, epoch, config.captions_per_image, config.steps_per_epoch)
        return shuffle_captions(self.data.train, *sizes)

    def _filled_fraction(self, captions: Captions, numbers: NDArray[np.int64]) -> float:
        """Returns how much of captions that are padded to the longest training caption are predicted tokens."""
        positions = len(numbers) * (self.data.train.max_length + _SENTENCE_TOKENS)
        return captions.count_targets(numbers, self._ignored_ids) / positions

    def _make_sample_logger(self, model: Captioner) -> SampleLogger:
        config, reader, samples = self.config, self._validation or self._train, []
        if config.num_sample_captions:
            samples.append(select_validation_samples(reader, self.vocabulary, config.num_sample_captions))
        if config.sample_images:
            table_config = self.tables.features.table_config
            samples.append(extract_sample_images(self.root, table_config, config.sample_images))
        limit, seed = self.metadata.max_new_tokens, config.seed
        return SampleLogger(model, samples, self.vocabulary, config.sample_temperatures, limit, seed)

    def _make_cider_metric(self, model: Captioner) -> CiderMetric | None:
        split, reader = self.data.validation_split, self._validation
        if split is None or reader is None:
            return None
        return CiderMetric(model, self.tables, split, reader.rows, self.metadata.max_new_tokens)

    def _open_reader(self, captions: Captions) -> BatchReader:
        # TensorFlow graphs accept any shape; other backends compile each new one.
        tokens, images = (1, 1) if keras.backend.backend() == "tensorflow" else (4, 8)
        return BatchReader(captions, self.tables.features, pad_tokens_to=tokens, pad_images_to=images)
