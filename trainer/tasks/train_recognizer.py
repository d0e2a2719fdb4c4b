"""`capt train captcha`: from a store to a run that reads words; a killed run goes on from its last checkpoint."""

import logging
from typing import Any

from features.io.locations import local_path
from features.store import open_store
from features.store.leases import hold_snapshot
from schemas.errors import UsageError
from schemas.options.training import TrainCaptcha
from trainer.config import RecognizerTraining, parse_recognizer
from trainer.data.captcha_data import CaptchaData, join_labels
from trainer.data.table_selection import LabelledTables, select_labelled_tables
from trainer.models.configs import RecognizerConfig
from trainer.runs.directory import lock_run, put_recognizer, record_store, start_run
from trainer.runs.metadata import FeatureOrigin, RecognizerMetadata, library_versions
from trainer.tasks.train_captioner import log_settings
from trainer.training.warm_start import WarmStart, learned_by

_log = logging.getLogger("capt.training")


def train_captcha(options: TrainCaptcha) -> dict[str, Any]:
    """Trains a recognizer on CAPTCHAs of a store; if the run directory holds the same run unfinished, resumes it.

    Images without a label are left out. The best epoch is the one with the highest exact match on the validation split,
    by greedy decoding.

    Args:
        options: The tables, the run directory and the hyperparameters.

    Returns:
        dict: `run`, `model`, `features`, `datasets`, `epochs`, `steps`, `resumed_at` (steps done before this call),
        `images`, `without_label` and `without_features` by split, `validation_split`, `best_epoch`, `seconds`, and the
        best epoch's `loss`, `accuracy`, `val_loss`, `val_accuracy` and `images_per_second`.

    Raises:
        UsageError: an option is unknown or wrong.
        StoreError: no table fits, several do, or the directory holds another run.
        LockedError: another process is training in `run_dir`.
        CaptError: there is nothing to learn from, or the loss is not a number any more.
    """
    root = local_path(options.run_dir, "--run-dir").absolute()
    training, sizes = parse_recognizer(options.profile, options.settings())
    warm = WarmStart.of(options.warm_start_from, RecognizerMetadata, "recognizer") if options.warm_start_from else None
    opened = open_store(options.store)
    with hold_snapshot(
        opened.path, lambda: select_labelled_tables(opened, options.dataset, options.feature_table)
    ) as tables:
        data = join_labels(tables)
        _say_what_is_left_out(data)
        _check_lengths(sizes, data)
        # Keras takes seconds to import; what can be told of the command without it has been told.
        from trainer.tasks.recognition_training import RecognitionTask
        from trainer.training.training_loop import TrainingLoop

        with lock_run(root):
            record = _record(sizes, training, tables, data, warm)
            learned = learned_by(data.train.keys, warm)
            start_run(root, record, lambda: put_recognizer(root, tables.features, data.train.words, learned))
            record_store(root, opened.path)
            log_settings(record)
            return TrainingLoop(root, record, RecognitionTask(root, record, tables, data, warm)).run()


def _record(
    sizes: RecognizerConfig,
    training: RecognizerTraining,
    tables: LabelledTables,
    data: CaptchaData,
    warm: WarmStart | None = None,
) -> RecognizerMetadata:
    validation = data.validation_split
    return RecognizerMetadata(
        sizes=sizes.model_dump(),
        training=training.resolved(),
        datasets=tuple(dataset.name for dataset in tables.datasets),
        features=FeatureOrigin.of(tables.features),
        train=data.train.digest,
        validation=data.splits[validation].digest if validation else None,
        validation_split=validation,
        words=len(set(data.train.words)),
        warm=warm.run.identity if warm else None,
        libraries=library_versions(),
    )


def _check_lengths(sizes: RecognizerConfig, data: CaptchaData) -> None:
    """UsageError where words have more letters than the model can read."""
    used = ("train", data.validation_split) if data.validation_split else ("train",)
    longest = max(data.splits[split].longest for split in used)
    if longest > sizes.max_label_length:
        raise UsageError(
            f"the longest word has {longest} letters, and the model reads {sizes.max_label_length}",
            hint=f"set max_label_length to {longest} in --config",
        )


def _say_what_is_left_out(data: CaptchaData) -> None:
    for counts, message in ((data.without_label, "word"), (data.without_features, "pixels")):
        missing = ", ".join(f"{split} {count:,}" for split, count in counts.items() if count)
        if missing:
            _log.info("images without %s are left out: %s", message, missing)
    if data.shared:
        _log.warning("%d images are in train and in val or test as well; scores there are flattered", data.shared)
    if data.validation_split is None:
        _log.warning("neither val nor test has words; the best epoch is the one that reads most of train right")
    elif data.validation_split != "val":
        _log.warning("no image of val has a word; validating on %s", data.validation_split)
