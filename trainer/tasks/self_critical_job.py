"""Trains a captioner on the CIDEr-D of its own samples: `objective: cider_d`."""

import logging

from features.runtime.keras_settings import keras
from trainer.data.labelled_batches import shuffle_images
from trainer.data.train_references import read_train_references
from trainer.metrics.cider_reward import CiderReward
from trainer.models.captioner import Captioner
from trainer.models.custom_models import check_training_without_targets
from trainer.models.losses import WeightedLogLikelihood
from trainer.runs.checkpoints import Progress
from trainer.tasks.captioning_job import CaptioningJob
from trainer.training.self_critical import CaptionSampler, compile_train_step
from trainer.training.training_job import Epoch

_log = logging.getLogger("capt.training")


class SelfCriticalJob(CaptioningJob):
    """Trains a captioner by self-critical sequence training; arguments as in `TrainingJob`.

    A step has `batch_size` images, each with `samples_per_image` sampled captions. The loss is the policy gradient's,
    which is near 0 on average, so the progress bar shows the reward.
    """

    metric_names: tuple[str, ...] = ("loss", "reward")
    shown_metric = "reward"

    @property
    def steps_per_pass(self) -> int:
        return -(-len(self.data.train.rows) // self.config.batch_size)

    @property
    def records_per_step(self) -> int:
        return self.config.batch_size * self.config.samples_per_image

    def make_loss(self, model: Captioner) -> keras.losses.Loss:
        return WeightedLogLikelihood(self.config.policy_temperature)

    def write_files(self) -> None:
        super().write_files()
        if self.metadata.source:
            model, name = self.metadata.build(self.root), self.metadata.model
            check_training_without_targets(model, name, self.metadata.features.shape)

    def compile_model(self) -> tuple[Captioner, list[keras.Metric]]:
        model, metrics = super().compile_model()
        self.validation_metrics = dict(zip(CaptioningJob.metric_names, metrics, strict=True))
        references = read_train_references(self.tables, self.data.train)
        reward = CiderReward(references, references.first, self.vocabulary)
        self._sampler = CaptionSampler(
            model, reward, self.config, self.metadata.max_new_tokens, self._train.pad_tokens_to
        )
        if self.config.reward_baseline == "greedy":
            self.metric_names = ("loss", "reward", "baseline")
        self._means = [keras.metrics.Mean(name) for name in self.metric_names]
        return model, self._means

    def initialize(self, model: Captioner) -> None:
        super().initialize(model)
        if not self.warm_start:
            _log.warning(
                "objective: cider_d without --warm-start-from: captions of random weights have a reward near 0, so "
                "the model may not learn."
            )
        elif self._cider:
            _log.info("val_cider_d before the second stage: %.4g", self._cider())

    def epoch(self, number: int) -> Epoch:
        config = self.config
        images = len(self.data.train.rows)
        order = shuffle_images(images, config.batch_size, config.seed, number, config.steps_per_epoch)
        augment = self.augmentation.for_epoch(number) if self.augmentation else None
        records = order.size * config.samples_per_image
        return Epoch(records, lambda first: self._train.image_dataset(order, first, augment))

    def monitored(self, metrics: dict[str, float]) -> tuple[float, ...]:
        # Without validation, the loss says nothing about the captions.
        return super().monitored(metrics) if "val_loss" in metrics else (-metrics["reward"],)

    def fit(
        self, model: Captioner, epoch: Epoch, start: Progress, callback: keras.callbacks.Callback
    ) -> dict[str, float]:
        """Trains step by step, because the samples of a step depend on the weights after the last one."""
        for mean in self._means:
            mean.reset_state()
        callback.set_model(model)
        callback.on_epoch_begin(start.epoch)
        logs: dict[str, float] = {}
        for step, (images, features) in enumerate(epoch.batches(start.step).as_numpy_iterator(), start.step):
            batch = self._sampler(features, images, start.epoch, step)
            compile_train_step(model, batch)
            loss = model.train_on_batch(batch.inputs, batch.targets, batch.weights, return_dict=True)["loss"]
            # Without a greedy caption, the mean baseline equals the mean reward, so it is not a metric.
            for mean, value in zip(self._means, (loss, batch.reward, batch.baseline), strict=False):
                mean.update_state(value)
            logs = {mean.name: float(mean.result()) for mean in self._means}
            callback.on_train_batch_end(step, logs)
        return logs
