"""The captions that a run is about: read from the ledger once, kept by key in a file of Arrow record batches."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from features.captions import CaptionsDigest
from pipelines.caption_ledger import CHOSEN, CaptionLedger


@dataclass(frozen=True)
class Chosen:
    """Captions by key, and what identifies them.

    Args:
        path: Path. The file, in Arrow's streaming format.
        rows: int. How many captions it holds.
        inputs: str. SHA-256 over all of them in order of key: key, split and text of each.
        train: CaptionsDigest. The digest of those in the train split.
    """

    path: Path
    rows: int
    inputs: str
    train: CaptionsDigest

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The captions, some thousands a batch of schema `CHOSEN`, mapped into memory rather than read."""
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader


def choose(ledger: CaptionLedger, path: Path) -> Chosen:
    """Write the captions that the ledger has chosen to a new file at `path`."""
    sha256, inputs, train, rows = hashlib.sha256, hashlib.sha256(), CaptionsDigest(), 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, CHOSEN) as writer:
        for batch in ledger.captions():
            writer.write_batch(batch)
            columns = (batch[name].to_pylist() for name in ("key", "split", "caption"))
            for key, split, caption in zip(*columns, strict=True):
                inputs.update(key + sha256(f"{split}\n{caption}".encode()).digest())
                if split == "train":
                    train.add(key, caption)
            rows += batch.num_rows
    return Chosen(path, rows, inputs.hexdigest(), train)
