"""The captions that a run is about: read from the ledger once, kept by key in a file of Arrow record batches."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from features.io.atomic_files import hash_file
from features.text.caption_keys import CaptionsDigest, compute_caption_digest
from pipelines.ingest.caption_database import SELECTED_CAPTIONS, CaptionDatabase


@dataclass(frozen=True)
class SelectedCaptions:
    """Captions by key, and what identifies them.

    Args:
        path: Path. The file, in Arrow's streaming format.
        names: Path or None. The file of `schemas.tables.FILE_NAMES`; None where ids say which files the images are.
        rows: int. How many captions it holds.
        inputs: str. SHA-256 over all of them in order of key, `caption_digest` and split of each, and the names' file.
        train: CaptionsDigest. The digest of those in the train split.
    """

    path: Path
    names: Path | None
    rows: int
    inputs: str
    train: CaptionsDigest

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The captions, some thousands a batch of schema `SELECTED_CAPTIONS`, mapped into memory rather than read."""
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader


def select_captions(job_database: CaptionDatabase, path: Path) -> SelectedCaptions:
    """Write the captions that the ledger has chosen to a new file at `path`."""
    inputs, train, rows = hashlib.sha256(), CaptionsDigest(), 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SELECTED_CAPTIONS) as writer:
        for batch in job_database.captions():
            writer.write_batch(batch)
            keys, splits, captions = (batch[name].to_pylist() for name in ("key", "split", "caption"))
            digests = list(map(compute_caption_digest, keys, captions))
            inputs.update(b"".join(d + split.encode() for d, split in zip(digests, splits, strict=True)))
            train.add(b"".join(d for d, split in zip(digests, splits, strict=True) if split == "train"))
            rows += batch.num_rows
    names = path.with_name("names.parquet") if job_database.count_file_names() else None
    if names:
        job_database.write_file_names(names)
        inputs.update(bytes.fromhex(hash_file(names)))
    return SelectedCaptions(path, names, rows, inputs.hexdigest(), train)
