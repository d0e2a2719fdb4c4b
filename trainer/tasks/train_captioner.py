"""`capt train captioner`: from a store to a run directory; a killed run goes on from its last checkpoint."""

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from features.io.locations import local_path
from features.store import open_store
from features.store.leases import hold_snapshot
from schemas.errors import UsageError
from schemas.options.training import TrainCaptioner
from trainer.config import TrainingConfig, parse_options
from trainer.data.caption_data import CaptionData, join_captions
from trainer.data.table_selection import TrainingTables, select_tables
from trainer.models.configs import ModelConfig
from trainer.models.model_specs import ModelSpec, PixelInput, model_spec
from trainer.runs.directory import lock_run, put_captioner, record_store, start_run
from trainer.runs.metadata import (
    CaptionerMetadata,
    CaptionOrigin,
    ExtractorOrigin,
    FeatureOrigin,
    RunMetadata,
    library_versions,
)
from trainer.training.warm_start import WarmStart, learned_by

if TYPE_CHECKING:
    from trainer.models.backbone import Backbone

_log = logging.getLogger("capt.training")


def train_captioner(options: TrainCaptioner) -> dict[str, Any]:
    """Trains a captioner on tables of a store; if the run directory holds the same run unfinished, resumes it.

    Args:
        options: The tables, the run directory, the model and its hyperparameters.

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
    spec = model_spec(options.model)
    if options.rnn_cell is not None and "rnn_cell" not in spec.config.model_fields:
        raise UsageError(f"{options.model} has no RNN cell", location="--rnn-cell", hint="Leave it out.")
    root = local_path(options.run_dir, "--run-dir").absolute()
    training, sizes = parse_options(spec.config, options.settings())
    warm = WarmStart.of(options.warm_start_from, CaptionerMetadata, spec.name) if options.warm_start_from else None
    opened = open_store(options.store)
    wanted = PixelInput() if training.extractor else spec
    tables_of = partial(select_tables, opened, wanted, options.dataset, options.feature_table, options.caption_table)
    with hold_snapshot(opened.path, tables_of) as tables:
        data = join_captions(tables)
        _say_what_is_left_out(data)
        _check_lengths(sizes, training, data)
        # Keras takes seconds to import; what can be told of the command without it has been told.
        from trainer.models.backbone import open_backbone
        from trainer.tasks.captioning_training import CaptioningTask
        from trainer.training.training_loop import TrainingLoop

        network = open_backbone(training, spec, tables.features.table_config) if training.extractor else None
        with lock_run(root):
            record = captioner_metadata(spec, sizes, training, tables, data, network, warm)
            start_run(root, record, lambda: put_captioner(root, tables, network, learned_by(data.train.keys, warm)))
            record_store(root, opened.path)
            log_settings(record)
            return TrainingLoop(root, record, CaptioningTask(root, record, tables, data, network, warm)).run()


def captioner_metadata(
    spec: ModelSpec,
    sizes: ModelConfig,
    training: TrainingConfig,
    tables: TrainingTables,
    data: CaptionData,
    network: "Backbone | None" = None,
    warm: WarmStart | None = None,
) -> CaptionerMetadata:
    """What a run is that learns from these captions.

    Args:
        spec: ModelSpec. The model.
        sizes: ModelConfig. Its sizes, of the spec's class.
        training: TrainingConfig. How it learns.
        tables: Tables. What it learns from,
        data: CaptionData. joined.
        network: Backbone or None. The extractor in the model, where it learns from pixels.
        warm: WarmStart or None. The run that it begins with.
    """
    validation = data.validation_split
    return CaptionerMetadata(
        model=spec.name,
        sizes=sizes.model_dump(),
        training=training.resolved(),
        datasets=tuple(dataset.name for dataset in tables.datasets),
        features=FeatureOrigin.of(tables.features),
        text=tuple(
            CaptionOrigin(fingerprint=text.fingerprint, table_config=text.table_config) for text in tables.texts
        ),
        train=data.train.digest,
        validation=data.splits[validation].digest if validation else None,
        validation_split=validation,
        vocabulary=len(tables.texts[0].vocabulary()),
        max_new_tokens=training.max_new_tokens or data.train.max_words + 1,
        libraries=library_versions(),
        extractor=ExtractorOrigin(table_config=network.table_config, shape=network.function.shape) if network else None,
        warm=warm.run.identity if warm else None,
    )


def _check_lengths(sizes: ModelConfig, training: TrainingConfig, data: CaptionData) -> None:
    """UsageError where captions have, or are to have, more words than the model can take."""
    limit = sizes.max_caption_length
    if limit is None:
        return
    used = ("train", data.validation_split) if data.validation_split else ("train",)
    longest = max(data.splits[split].max_words for split in used)
    if longest > limit:
        raise UsageError(
            f"the longest caption has {longest} words, and the model takes {limit}",
            hint=f"set max_length to {longest}, or prepare captions with --max-length {limit + 2}",
        )
    if (training.max_new_tokens or 0) > limit + 1:
        raise UsageError(f"max_new_tokens is {training.max_new_tokens}, and the model generates at most {limit + 1}")


def log_settings(record: RunMetadata) -> None:
    """Log every setting of a run."""
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
