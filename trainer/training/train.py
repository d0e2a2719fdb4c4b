"""Trains a model on tables of a store. If the run directory contains the same run unfinished, training resumes."""

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from features.io.locations import local_path
from features.store import open_store
from features.store.leases import hold_snapshot
from schemas.errors import CaptError
from trainer.data.training_data import AnySplit, TrainingData
from trainer.runs.directory import lock_run, start_run
from trainer.training.warm_start import open_warm_start

if TYPE_CHECKING:
    from trainer.tasks.task import Task

_MAX_LOGGED = 80

_log = logging.getLogger("capt.training")


def train(task: "Task", options: Any) -> dict[str, Any]:
    """Trains a run of a task with the options of its training command.

    Returns:
        `run_dir`, `model`, `datasets`, `feature_table` and `caption_tables` (fingerprints), `epochs`, `steps`,
        `resumed_at` (steps done before this call), `captions` or `images`, `without_features` and `without_label` by
        split, for recognizers `unrecognizable_labels` by split (with characters or lengths that the train labels lack)
        and `calibration` (`trainer.runs.metadata.Calibration`),
        `validation_split`, `best_epoch`, the metrics of the best epoch (`val_…` if there is validation), and
        `seconds`.

    Raises:
        UsageError: An option is unknown or invalid.
        StoreError: No table fits, several do, or the directory contains another run.
        LockedError: Another process is training in the run directory.
        CaptError: The train split or `validation_split: test` is empty, or the loss is infinite or not a number.
    """
    root = local_path(options.run_dir, "--run-dir").absolute()
    hyperparameters = task.parse(getattr(options, task.choice), options.settings())
    origin = options.warm_start_from
    warm_start = open_warm_start(origin, task.name, hyperparameters.model) if origin else None
    store = open_store(options.store)
    with hold_snapshot(store.path, partial(task.select_tables, store, options, hyperparameters)) as tables:
        data = replace(task.load_data(tables), validate_on=hyperparameters.training.validation_split)
        _log_skipped(data)
        hyperparameters = task.resolve(hyperparameters, tables, data, warm_start)
        # Importing Keras takes seconds, so all checks without Keras are first.
        from trainer.training.training_loop import TrainingLoop

        job = task.make_job(root, hyperparameters, tables, data, warm_start)
        with lock_run(root):
            start_run(root, job.metadata, store.path, job.write_files)
            values = {**job.metadata.architecture, **job.metadata.training.model_dump(exclude_none=True)}
            _log.info(
                "%s: %s", job.metadata.model, ", ".join(f"{name} {_shorten(value)}" for name, value in values.items())
            )
            return TrainingLoop(root, job).run()


def _shorten(value: Any) -> str:
    """Returns a value as text of at most one line, because a charset may have thousands of characters."""
    text = str(value)
    return text if len(text) <= _MAX_LOGGED else f"{text[:_MAX_LOGGED]}…"


def _log_skipped(data: TrainingData[AnySplit]) -> None:
    for reason, counts in data.skipped.items():
        skipped = ", ".join(f"{split} {count:,}" for split, count in counts.items() if count)
        # A test split without labels is normal.
        level = logging.INFO if reason == "without_label" else logging.WARNING
        if skipped:
            _log.log(level, "Records %s are skipped: %s.", reason.replace("_", " "), skipped)
    if shared := data.count_shared_images():
        _log.warning(
            "%d images are in train and also in val or test. Metrics on these splits are biased upward.", shared
        )
    if data.validate_on == "test":
        if data.validation_split is None:
            hint = "Use validation_split: val, or prepare images of test."
            raise CaptError("the test split has no usable records", location="validation_split", hint=hint)
        _log.warning("Validating on test. The best epoch is selected on test, so scores on test are biased upward.")
    elif data.validation_split is None:
        _log.warning("Neither val nor test has usable records. The best epoch is selected by training metrics.")
    elif data.validation_split != "val":
        _log.warning("The val split has no usable records. Validating on %s.", data.validation_split)
