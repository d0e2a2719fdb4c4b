"""Prepares the datasets of a retraining and identifies the training data of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.store import Store
from schemas.table_config import compute_digest
from trainer.runs.run import Run
from workflows.prepared_tasks import check_same_table, dataset_name, errors_in, files_named
from workflows.retraining.config import RetrainConfig
from workflows.retraining.data_snapshot import DataSnapshot

_VOCABULARY_OPTIONS = ("vocab_size", "min_count")
_SUMMARY_KEYS = ("dataset", "input", "ok", "cached", "duplicate", "failed", "fingerprint", "seconds", "reasons")


@dataclass(frozen=True)
class PreparedData:
    """The tables that a run is trained on.

    Args:
        datasets: Names of the datasets.
        tables: Fingerprints by key of `PreparedTask.preparations`. The caption table is that of the first dataset.
        caption_tables: Fingerprint of each dataset's caption table; empty for CAPTCHAs.
        summaries: Result of each preparation.
    """

    datasets: tuple[str, ...]
    tables: dict[str, str]
    caption_tables: tuple[str, ...]
    summaries: tuple[dict[str, Any], ...]

    @property
    def failure_rate(self) -> float:
        """Highest fraction of failed records of all preparations, so that a good one does not hide a bad one."""
        return max((summary["failed"] / max(1, summary["input"]) for summary in self.summaries), default=0.0)


def prepare_data(
    config: RetrainConfig, store: Store, vocabulary_from: Run | None, dry_run: bool = False
) -> PreparedData:
    """Prepares every dataset. Failed records do not stop a preparation; the data checks limit them.

    The vocabulary is that of `vocabulary_from`; without such a run it is built from the first dataset.

    Raises:
        UsageError: The features of the datasets are in different tables.
    """
    reused = str(vocabulary_from.metadata.caption_tables[0].fingerprint) if vocabulary_from else None
    summaries: list[dict[str, Any]] = []
    caption_tables: list[str] = []
    tables: dict[str, str] = {}
    datasets: list[str] = []
    features: list[dict[str, Any]] = []
    for dataset in config.data:
        for table, preparation in config.training_task.preparations.items():
            options = {"max_failures": "100%", **config.preparation_options(table, dataset)}
            vocabulary = reused or (caption_tables[0] if caption_tables else None)
            if table == "captions" and vocabulary:
                options = {name: value for name, value in options.items() if name not in _VOCABULARY_OPTIONS}
                options["vocab_from"] = vocabulary
            summary = preparation.prepare(store.path, options, dry_run)
            summaries.append(summary)
            tables.setdefault(table, str(summary["fingerprint"]))
            if table == "captions":
                caption_tables.append(str(summary["fingerprint"]))
            else:
                datasets.append(dataset_name(options, config.task))
                features.append(summary)
    with errors_in("data"):
        check_same_table(features)
    return PreparedData(tuple(datasets), tables, tuple(caption_tables), tuple(summaries))


def read_snapshot(store: Store, data: PreparedData) -> DataSnapshot:
    """Returns the snapshot of the data that a run would be trained on."""
    return DataSnapshot.read(store, data.datasets, data.caption_tables, data.tables["features"])


def hash_settings(config: RetrainConfig, data: PreparedData) -> str:
    """Returns a digest of all inputs of a run except the data."""
    training = [config.task, config.training_task.settings(config.train), config.initialization, config.vocabulary]
    return compute_digest([*training, config.captions, data.tables["features"], files_named(config.train)])


def hash_inputs(config: RetrainConfig, data: PreparedData, snapshot: DataSnapshot) -> str:
    """Returns a digest of the settings and the data of a run. Runs with equal digests have equal inputs."""
    return compute_digest([hash_settings(config, data), snapshot.digest])


def summarize(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the counts of one preparation for the decision's lineage."""
    return {name: summary[name] for name in _SUMMARY_KEYS if name in summary}
