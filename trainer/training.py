"""`capt train captioner`: from a store to a run directory; a killed run goes on from its last checkpoint.

Every batch is a function of (seed, epoch, step), and a checkpoint keeps weights, optimizer, random generators and the
unfinished epoch's figures, so that a run that was killed and goes on gives what an unbroken one gives.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from features.files import write
from features.progress import bar, is_shown
from features.store import open_store
from features.store.pins import pinned
from schemas.errors import CaptError, UsageError
from schemas.recipes import SHORT_FINGERPRINT
from trainer.augmentation import Augmentation
from trainer.batches import BatchReader, Order, epoch_order, plain_order, sampled_order, steps_an_epoch
from trainer.boards import Board
from trainer.captioner import Captioner
from trainer.checkpoints import Checkpoints, EpochFigures, Progress, metric_sums, random_states, restore_sums
from trainer.config import TrainingConfig, parse_options
from trainer.data import CaptionData, join_captions
from trainer.devices import computing_on
from trainer.directory import (
    CHECKPOINTS,
    LOGS,
    LOSS_PLOT,
    METRICS,
    ExtractorOrigin,
    FeatureOrigin,
    RunRecord,
    TextOrigin,
    begin_run,
    library_versions,
    locked,
    note_store,
)
from trainer.judges import CiderJudge
from trainer.losses import CrossEntropy, MaskedAccuracy, MaskedCrossEntropy
from trainer.model_configs import ModelConfig
from trainer.models import ModelSpec, PixelInput, model_spec
from trainer.optimizers import make_optimizer
from trainer.pixels import PixelNetwork, open_network
from trainer.plots import loss_figure, save_figure
from trainer.samples import Samples
from trainer.tables import Tables, select_tables

_SCALE_IMAGES = 256

_log = logging.getLogger("capt.training")


def train_captioner(
    store: str | Path,
    run_dir: str | Path,
    model: str = "soft_attention",
    *,
    dataset: Sequence[str] | None = None,
    features: str | None = None,
    captions: str | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    checkpoint_every: int | None = None,
    captions_per_image: str | None = None,
    cell: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a captioner on tables of a store; where `run_dir` holds the same run unfinished, go on with it.

    Args:
        store: str or Path. The store.
        run_dir: str or Path. The run directory, see `trainer.directory`.
        model: str. A name of `trainer.models`.
        dataset: sequence of str or None. Datasets to learn from; None where the store holds one with captions.
        features: str or None. Fingerprint of the feature table, or its beginning; None where one fits.
        captions: str or None. Fingerprint of the text table, or its beginning; None where one fits.
        seed: int or None. As in `TrainingConfig`; this and the next five go before `options`.
        epochs: int or None. As in `TrainingConfig`.
        steps_per_epoch: int or None. As in `TrainingConfig`.
        checkpoint_every: int or None. As in `TrainingConfig`.
        captions_per_image: str or None. As in `TrainingConfig`.
        cell: str or None. The model's recurrence; not for models without one.
        options: mapping or None. Fields of `TrainingConfig` and of the model's configuration.

    Returns:
        dict: `run`, `model`, `features`, `text`, `datasets`, `epochs`, `steps`, `resumed_at` (steps done before this
        call), `captions` and `without_features` by split, `validation_split`, `best_epoch`, `seconds`, and the best
        epoch's `loss`, `accuracy`, `val_loss`, `val_accuracy` and `captions_per_second`.

    Raises:
        UsageError: an option is unknown or wrong.
        StoreError: no table fits, several do, or the directory holds another run.
        LockedError: another process is training in `run_dir`.
        CaptError: there is nothing to learn from, or the loss is not a number any more.
    """
    spec = model_spec(model)
    if cell is not None and "cell" not in spec.config.model_fields:
        raise UsageError(f"{model} has no recurrence to choose", where="--cell", mend="leave it out")
    named = {
        "seed": seed,
        "epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "checkpoint_every": checkpoint_every,
        "captions_per_image": captions_per_image,
        "cell": cell,
    }
    given = {name: value for name, value in named.items() if value is not None}
    training, sizes = parse_options(spec.config, {**(options or {}), **given})
    opened = open_store(store)
    root = Path(run_dir).absolute()
    wanted = PixelInput() if training.extractor else spec
    with pinned(opened.path, lambda: select_tables(opened, wanted, dataset, features, captions)) as tables:
        network = open_network(training, spec, tables.features.recipe) if training.extractor else None
        data = join_captions(tables)
        _say_what_is_left_out(data)
        _check_lengths(sizes, training, data)
        with locked(root):
            record = begin_run(root, _record(spec, sizes, training, tables, data, network), tables, network)
            note_store(root, opened.path)
            _say_settings(record)
            return Training(root, record, tables, data, network).run()


def _record(
    spec: ModelSpec,
    sizes: ModelConfig,
    training: TrainingConfig,
    tables: Tables,
    data: CaptionData,
    network: PixelNetwork | None,
) -> RunRecord:
    validation = data.validation_split
    table = tables.features
    return RunRecord(
        model=spec.name,
        sizes=sizes.model_dump(),
        training=training,
        datasets=tuple(dataset.name for dataset in tables.datasets),
        features=FeatureOrigin(
            fingerprint=table.fingerprint, recipe=table.recipe, shape=table.shape, network=table.facts.network
        ),
        text=tuple(TextOrigin(fingerprint=text.fingerprint, recipe=text.recipe) for text in tables.texts),
        train=data.train.digest,
        validation=data.splits[validation].digest if validation else None,
        validation_split=validation,
        vocabulary=len(tables.texts[0].vocabulary()),
        max_words=training.max_words or data.train.max_words,
        libraries=library_versions(),
        extractor=ExtractorOrigin(recipe=network.recipe, shape=network.function.shape) if network else None,
    )


def _check_lengths(sizes: ModelConfig, training: TrainingConfig, data: CaptionData) -> None:
    """UsageError where captions have, or are to have, more words than the model can take."""
    if sizes.most_words is None:
        return
    used = ("train", data.validation_split) if data.validation_split else ("train",)
    longest = max(data.splits[split].max_words for split in used)
    if longest > sizes.most_words:
        raise UsageError(
            f"the longest caption has {longest} words, and the model takes {sizes.most_words}",
            mend=f"set longest to {longest}, or prepare captions with --max-length {sizes.most_words + 2}",
        )
    if (training.max_words or 0) > sizes.most_words:
        raise UsageError(f"max_words is {training.max_words}, and the model says {sizes.most_words} words at most")


def _say_settings(record: RunRecord) -> None:
    settings = {**record.sizes, **record.training.model_dump(exclude_none=True)}
    _log.info("%s: %s", record.model, ", ".join(f"{name} {value}" for name, value in settings.items()))


def _say_what_is_left_out(data: CaptionData) -> None:
    missing = ", ".join(f"{split} {count}" for split, count in data.without_features.items() if count)
    if missing:
        _log.warning("captions without features are left out: %s", missing)
    if data.shared:
        _log.warning("%d images are in train and in val or test as well; scores there are flattered", data.shared)
    if data.validation_split is None:
        _log.warning("neither val nor test has captions; the best epoch is the one with the least training loss")
    elif data.validation_split != "val":
        _log.warning("there is no val split; validating on %s", data.validation_split)


class Training:
    """One run, from where it stands to its last epoch.

    Args:
        root: Path. The run directory, begun and locked.
        record: RunRecord. What it is.
        tables: Tables. Where features come from.
        data: CaptionData. The captions.
        network: PixelNetwork or None. The extractor in the model, as a run on pixels begins with it.
    """

    def __init__(
        self, root: Path, record: RunRecord, tables: Tables, data: CaptionData, network: PixelNetwork | None = None
    ) -> None:
        self.root = root
        self.record = record
        self.data = data
        self.config = record.training
        self.steps = self.config.steps_per_epoch or steps_an_epoch(
            data.train, self.config.batch_size, self.config.captions_per_image
        )
        self.checkpoints = Checkpoints(root / CHECKPOINTS)
        self._reader = _reader(data, "train", tables)
        self._held_out = _reader(data, record.validation_split, tables) if record.validation_split else None
        self._words = tables.texts[0].vocabulary()
        self._tables = tables
        self._network = network
        self._augmentation = Augmentation.of(self.config)

    def run(self) -> dict[str, Any]:
        """Train to the last epoch; the figures that `train_captioner` returns."""
        with computing_on(self.config.devices):
            return self._run()

    def _run(self) -> dict[str, Any]:
        started = time.monotonic()
        self.model, self.metrics = compiled_model(self.root, self.record, self.steps)
        self._samples = self._make_samples()
        self._judge = self._make_judge()
        progress = self.checkpoints.load_last(self.model) or self._begin()
        resumed_at = self._total(progress)
        if resumed_at:
            _log.info("going on after %d epochs and %d steps", progress.epoch, progress.step)
        board = Board(self.root / LOGS, progress.history)
        self._write_metrics(progress.history)
        while progress.epoch < self.config.epochs and not self._gave_up(progress):
            progress = self._epoch(progress)
            self._samples.show(progress.epoch)
            self._write_metrics(progress.history)
            board.add(progress.history[-1])
        board.close()
        return self._figures(progress, resumed_at, time.monotonic() - started)

    def _gave_up(self, progress: Progress) -> bool:
        """Whether the last `stop_after` epochs were no better than one before."""
        best, patience = progress.best, self.config.stop_after
        return bool(best and patience and progress.step == 0 and progress.epoch - best.epoch >= patience)

    def _make_judge(self) -> CiderJudge | None:
        split = self.record.validation_split
        if self.config.judge == "loss" or split is None:
            return None
        return CiderJudge(self.model, self._tables, split, self.record.max_words)

    def _make_samples(self) -> Samples:
        reader = self._held_out or self._reader
        return Samples(self.model, reader, self._words, self.config.show_captions, self.record.max_words)

    def _begin(self) -> Progress:
        if self._network:
            self.model.feature_scale.network.set_weights(self._network.function.network.get_weights())
        counts = np.bincount(self.data.train.tokens, minlength=self.record.vocabulary)
        self.model.adapt(self._reader.sample(_SCALE_IMAGES), counts)
        return Progress(random=random_states(self.model))

    def _epoch(self, progress: Progress) -> Progress:
        order = self._order(progress.epoch)
        label = f"epoch {progress.epoch + 1} of {self.config.epochs}"
        with bar(label, self.steps, "steps") as show:
            watcher = StepWatcher(progress, self.steps, self.metrics, self._keep, self.config.checkpoint_every, show)
            change = self._augmentation and self._augmentation.of_epoch(progress.epoch)
            batches = self._reader.dataset(order, self.config.batch_size, progress.step, change)
            logs = self._fit(batches, watcher, progress.epoch)
        ended = self._ended(watcher.progress(), logs, captions=sum(map(len, order)))
        self.checkpoints.save(self.model, ended, self._total(ended))
        _say(ended.history[-1], self.config.epochs)
        return ended

    def _fit(self, batches: tf.data.Dataset, watcher: "StepWatcher", epoch: int) -> dict[str, float]:
        with _reading(self._reader):
            history = self.model.fit(
                batches, initial_epoch=epoch, epochs=epoch + 1, callbacks=[watcher], shuffle=False, verbose=0
            )
        return {name: values[-1] for name, values in history.history.items()}

    def _ended(self, progress: Progress, logs: dict[str, float], captions: int) -> Progress:
        figures = EpochFigures(
            epoch=progress.epoch + 1,
            loss=_finite(logs["cross_entropy"]),
            accuracy=logs["accuracy"],
            **self._validate(),
            seconds=round(progress.seconds, 3),
            captions_per_second=round(captions / max(progress.seconds, 1e-9), 1),
        )
        history = (*progress.history, figures)
        return Progress(epoch=progress.epoch + 1, history=history, random=random_states(self.model))

    def _validate(self) -> dict[str, float]:
        if self._held_out is None:
            return {}
        size = self.config.batch_size
        batches = self._held_out.dataset(plain_order(self._held_out.captions, size), size)
        with _reading(self._held_out):
            logs = self.model.evaluate(batches, verbose=0, return_dict=True)
        figures = {"val_loss": _finite(logs["cross_entropy"]), "val_accuracy": logs["accuracy"]}
        return figures | {"val_cider_d": self._judge()} if self._judge else figures

    def _order(self, epoch: int) -> Order:
        train, size, seed = self.data.train, self.config.batch_size, self.config.seed
        if self.config.steps_per_epoch:
            return sampled_order(train, size, seed, epoch, self.steps, self.config.captions_per_image)
        return epoch_order(train, size, seed, epoch, self.config.captions_per_image)

    def _keep(self, progress: Progress) -> None:
        self.checkpoints.save(self.model, progress, self._total(progress))

    def _total(self, progress: Progress) -> int:
        return progress.epoch * self.steps + progress.step

    def _write_metrics(self, history: Sequence[EpochFigures]) -> None:
        lines = "".join(json.dumps(figures.model_dump()) + "\n" for figures in history)
        write(self.root / METRICS, lines.encode())
        if history:
            save_figure(loss_figure(history), self.root / LOSS_PLOT)

    def _figures(self, progress: Progress, resumed_at: int, seconds: float) -> dict[str, Any]:
        best = progress.best
        assert best is not None
        return {
            "run": str(self.root),
            "model": self.record.model,
            "datasets": list(self.record.datasets),
            "features": self.record.features.fingerprint[:SHORT_FINGERPRINT],
            "text": [origin.fingerprint[:SHORT_FINGERPRINT] for origin in self.record.text],
            "captions": {split: len(captions) for split, captions in self.data.splits.items()},
            "without_features": self.data.without_features,
            "validation_split": self.record.validation_split,
            "epochs": progress.epoch,
            "steps": self._total(progress),
            "resumed_at": resumed_at,
            "best_epoch": best.epoch,
            **best.model_dump(exclude={"epoch", "seconds"}),
            "seconds": round(seconds, 3),
        }


def compiled_model(root: Path, record: RunRecord, steps: int) -> tuple[Captioner, list[keras.Metric]]:
    """The run's model with weights drawn from its seed, ready to be trained, and what it measures besides the loss.

    Args:
        root: Path. The run directory.
        record: RunRecord. The run.
        steps: int. Steps an epoch.
    """
    config = record.training
    keras.utils.set_random_seed(config.seed)
    with computing_in(config.precision):
        model = record.build(root)
        learning = model.feature_scale.network.trainable_variables if record.extractor else ()
        metrics = [CrossEntropy(model.left_out), MaskedAccuracy(model.left_out)]
        # XLA was measured no faster on the CPU, and it compiles for 8 s at every new shape.
        model.compile(
            optimizer=make_optimizer(config, steps, learning),
            loss=MaskedCrossEntropy(config.label_smoothing, model.left_out),
            metrics=metrics,
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
    return model, metrics


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Layers made within the block compute in `precision`, a Keras dtype policy; their weights stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class StepWatcher(keras.callbacks.Callback):
    """Keeps count within an epoch: puts back what the checkpoint knew, shows progress, saves every so many steps.

    Args:
        start: Progress. Where the run stood when the epoch, or the rest of it, began.
        steps: int. Steps of the whole epoch.
        metrics: sequence of keras.Metric. What the model measures.
        keep: function. Saves a checkpoint.
        every: int or None. Steps between checkpoints.
        show: function. Takes the steps done and a note.
    """

    def __init__(
        self,
        start: Progress,
        steps: int,
        metrics: Sequence[keras.Metric],
        keep: Callable[[Progress], None],
        every: int | None,
        show: Callable[[int, str], None],
    ) -> None:
        super().__init__()
        self._start = start
        self._steps = steps
        self._metrics = metrics
        self._keep = keep
        self._every = every
        self._show = show
        self._step = start.step
        self._seconds = start.seconds
        self._clock = 0.0

    def progress(self) -> Progress:
        """Where the run stands now, within the epoch."""
        # On JAX the state of training reaches model and metrics when a callback asks for its model.
        model = self.model
        return self._start.model_copy(
            update={
                "step": self._step,
                "seconds": self._seconds,
                "sums": metric_sums(self._metrics),
                "random": random_states(model),
            }
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._start.step:
            restore_sums(self._metrics, self._start.sums)
        self._clock = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        now = time.monotonic()
        self._seconds += now - self._clock
        if is_shown():
            self._show(self._step, f"loss {_finite(float(logs['cross_entropy'])):.3f}")
        if self._every and self._step % self._every == 0 and self._step < self._steps:
            _finite(float(logs["cross_entropy"]))
            self._keep(self.progress())
        self._clock = time.monotonic()


@contextmanager
def _reading(reader: BatchReader) -> Iterator[None]:
    """Within the block, an error that tf.data passed on as text is raised as the CaptError that it was."""
    reader.error = None
    try:
        yield
    except tf.errors.OpError as error:
        if reader.error is None:
            raise
        raise reader.error from error


def _reader(data: CaptionData, split: str, tables: Tables) -> BatchReader:
    # TensorFlow's graphs take any shape; other backends compile each anew.
    words, images = (1, 1) if keras.backend.backend() == "tensorflow" else (4, 8)
    return BatchReader(data.splits[split], tables.features, round_words=words, round_images=images)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise CaptError("the loss is not a number any more", mend="train again with a smaller learning_rate")
    return loss


def _say(figures: EpochFigures, epochs: int) -> None:
    held_out = "" if figures.val_loss is None else f", validation {figures.val_loss:.3f}"
    _log.info(
        "epoch %d of %d: loss %.3f%s, %.0f captions/s, %.0f s",
        figures.epoch,
        epochs,
        figures.loss,
        held_out,
        figures.captions_per_second,
        figures.seconds,
    )
