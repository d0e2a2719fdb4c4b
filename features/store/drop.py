"""Removes a dataset and its caption tables from a store.

The removal is a commit: it replaces the live commits and adds nothing, so readers of an open snapshot are not affected.
The features of the dataset's images stay until a compaction finds that no other dataset references them.
"""

import time
from functools import partial
from typing import Any

from features.store.commit_log import CommitLog, LogState
from features.store.dataset import Dataset
from features.store.leases import lease, table_name
from features.store.store import open_store
from schemas.manifests import DroppedMetadata, Manifest
from schemas.options.store import StoreDrop


def drop_dataset(options: StoreDrop) -> dict[str, Any]:
    """Removes a dataset from a store. It is not an error if the dataset was removed before.

    Returns:
        `dataset`; `images`, the number of its images; `caption_tables`, the fingerprints of the removed caption tables;
        and `seconds`.

    Raises:
        StoreError: The store never contained the dataset.
    """
    started = time.monotonic()
    store, name = open_store(options.store), options.dataset
    root = store.dataset_root(name)
    if not CommitLog(root).last():
        store.dataset(name)  # raises the error that lists the datasets
    dataset = Dataset(root)
    captions = [table for table in store.caption_tables() if table.table_config.dataset == name]
    # The dataset is removed last: if the removal is interrupted, the same command can finish it.
    tables = {**{table.root: table.fingerprint for table in captions}, root: name}
    with lease(store.path, "change", {table_name(store.path, one): () for one in tables}):
        for one, table in tables.items():
            CommitLog(one).update(partial(_replace_all, table))
    return {
        "dataset": name,
        "images": sum(dataset.facts.images.values()) if dataset.manifests else 0,
        "caption_tables": [table.fingerprint for table in captions],
        "seconds": round(time.monotonic() - started, 3),
    }


def _replace_all(table: str, log_state: LogState) -> Manifest | None:
    log_state.check_complete()
    replaces = tuple(manifest.digest for manifest in log_state.live)
    return Manifest(table=table, replaces=replaces, facts=DroppedMetadata()) if replaces else None
