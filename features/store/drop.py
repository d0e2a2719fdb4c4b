"""Removal: a dataset taken out of a store, with the tokens of its captions.

A removal is a commit like any other: it replaces what is live and adds nothing, so who has the dataset open keeps it.
The features of its images stay until a compaction finds that no other dataset names them.
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
    """Take a dataset out of a store.

    Args:
        options: The store and the dataset. A dataset that was removed before is not an error.

    Returns:
        `dataset`, `images` that it had, `text` (fingerprints of the text tables that went with it) and `seconds`.

    Raises:
        StoreError: there never was such a dataset.
    """
    started = time.monotonic()
    opened, name = open_store(options.store), options.dataset
    dataset = opened.dataset_root(name)
    images = _images(opened, name)
    texts = [table for table in opened.caption_tables() if table.table_config.dataset == name]
    roots = [*(table.root for table in texts), dataset]
    with lease(opened.path, "change", {table_name(opened.path, root): () for root in roots}):
        # The dataset goes last, so that a removal cut short is seen to be unfinished.
        for table in texts:
            _take_out(table.root, table.fingerprint)
        _take_out(dataset, name)
    return {
        "dataset": name,
        "images": images,
        "text": [table.fingerprint for table in texts],
        "seconds": round(time.monotonic() - started, 3),
    }


def _images(store: Store, name: str) -> int:
    root = store.dataset_root(name)
    if not CommitLog(root).last():
        store.dataset(name)  # it names the datasets there are
    dataset = Dataset(root)
    return sum(dataset.facts.images.values()) if dataset.manifests else 0


def _take_out(root: Path, table: str) -> None:
    CommitLog(root).update(lambda log_state: _without(table, log_state))


def _without(table: str, log_state: LogState) -> Manifest | None:
    """A commit that takes out all that is live."""
    for error in (log_state.unreadable[digest] for digest in log_state.blocking):
        raise error
    replaces = tuple(manifest.digest for manifest in log_state.live)
    return Manifest(table=table, replaces=replaces, facts=DroppedMetadata()) if replaces else None
