"""Provides data, model and metrics of a captioner to the training loop."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from features.io.atomic_files import write
from features.runtime.keras_settings import keras
from features.text.vocabulary import write_vocabulary
from trainer.config import CaptionerTraining
from trainer.data.caption_batches import BatchReader, shuffle_captions, sort_captions, steps_per_epoch
from trainer.data.caption_data import Captions
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
from trainer.training.caption_validation import CiderMetric, SampleLogger
from trainer.training.compile_model import build_scope, compile_model
from trainer.training.training_job import Epoch, TrainingJob
from trainer.training.warm_start import copy_weights

_NORMALIZATION_IMAGES = 256


class CaptioningJob(TrainingJob[CaptionerTraining, Captions]):
    """Trains a captioner; arguments as in `TrainingJob`."""

    unit = "captions"
    metric_names = ("loss", "token_accuracy")
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
        return self._open_reader("train")

    @cached_property
    def _validation(self) -> BatchReader | None:
        return self._open_reader(self.data.validation_split) if self.data.validation_split else None

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
            metrics = [CrossEntropy(model.ignored_ids), MaskedAccuracy(model.ignored_ids)]
            loss = MaskedCrossEntropy(self.config.label_smoothing, model.ignored_ids)
            compile_model(model, self.config, self.steps, loss, metrics, slow, self.config.extractor_lr_multiplier)
        split, max_new_tokens = self.data.validation_split, self.metadata.max_new_tokens
        count, reader = self.config.num_sample_captions, self._validation or self._train
        self._samples = SampleLogger(model, reader, self.vocabulary, count, max_new_tokens)
        needs_cider = self.config.monitor != "val_loss"
        self._cider = CiderMetric(model, self.tables, split, max_new_tokens) if split and needs_cider else None
        return model, metrics

    def initialize(self, model: Captioner) -> None:
        if self._backbone:
            model.feature_normalization.network.set_weights(self._backbone.function.model.get_weights())
        counts = np.bincount(self.data.train.tokens, minlength=len(self.vocabulary))
        model.adapt(self._train.sample(_NORMALIZATION_IMAGES), counts)
        if self.warm_start:
            run = self.warm_start
            assert isinstance(run, CaptionerRun)
            copy_weights(run, model, self.metadata, self.root, (run.vocabulary, self.vocabulary))

    def epoch(self, number: int) -> Epoch:
        train, config = self.data.train, self.config
        size, per_image = config.batch_size, config.captions_per_image
        order = shuffle_captions(train, size, config.seed, number, per_image, config.steps_per_epoch)
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

    def log_samples(self, epoch: int) -> None:
        self._samples.log(epoch)

    def plot(self, history: Sequence[EpochMetrics]) -> Figure:
        return loss_figure(history)

    def _open_reader(self, split: str) -> BatchReader:
        # TensorFlow graphs accept any shape; other backends compile each new one.
        tokens, images = (1, 1) if keras.backend.backend() == "tensorflow" else (4, 8)
        split_data, features = self.data.splits[split], self.tables.features
        return BatchReader(split_data, features, pad_tokens_to=tokens, pad_images_to=images)
