"""Removes a dataset and its caption tables from a store.

The removal is a commit: it replaces the live commits and adds nothing, so readers of an open snapshot are not affected.
The features of the dataset's images stay until a compaction finds that no other dataset references them.
"""

import time
from pathlib import Path
from typing import Any

from features.store.commit_log import CommitLog, LogState
from features.store.dataset import Dataset
from features.store.leases import lease, table_name
from features.store.store import Store, open_store
from schemas.manifests import DroppedMetadata, Manifest
from schemas.options.store import StoreDrop


def drop_dataset(options: StoreDrop) -> dict[str, Any]:
    """Removes a dataset from a store.

    Args:
        options: The store and the dataset. It is not an error if the dataset was removed before.

    Returns:
        `dataset`; `images`, the number of its images; `caption_tables`, the fingerprints of the removed caption tables;
        and `seconds`.

    Raises:
        StoreError: The store never contained the dataset.
    """
    started = time.monotonic()
    store, name = open_store(options.store), options.dataset
    dataset = store.dataset_root(name)
    images = _count_images(store, name)
    tables = [table for table in store.caption_tables() if table.table_config.dataset == name]
    roots = [*(table.root for table in tables), dataset]
    with lease(store.path, "change", {table_name(store.path, root): () for root in roots}):
        # The dataset is removed last: if the removal is interrupted, the same command can finish it.
        for table in tables:
            _drop_table(table.root, table.fingerprint)
        _drop_table(dataset, name)
    return {
        "dataset": name,
        "images": images,
        "caption_tables": [table.fingerprint for table in tables],
        "seconds": round(time.monotonic() - started, 3),
    }


def _count_images(store: Store, name: str) -> int:
    root = store.dataset_root(name)
    if not CommitLog(root).last():
        store.dataset(name)  # raises the error that lists the datasets
    dataset = Dataset(root)
    return sum(dataset.facts.images.values()) if dataset.manifests else 0


def _drop_table(root: Path, name: str) -> None:
    def build(log_state: LogState) -> Manifest | None:
        log_state.check_complete()
        replaces = tuple(manifest.digest for manifest in log_state.live)
        return Manifest(table=name, replaces=replaces, facts=DroppedMetadata()) if replaces else None

    CommitLog(root).update(build)
