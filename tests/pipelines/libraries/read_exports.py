"""Reads exports of a store with the libraries that they are for, and prints what these find.

    python read_exports.py OUT             JSON: by format and split, a list of image ID, captions, token IDs, and
                                           shape, dtype and SHA-256 of the features
    python read_exports.py SHARDS SIDE     JSON: a list of key, SHA-256 of the image and of the features, or null

It runs in an environment with `requirements.txt` and without capt.
"""

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

Row = tuple[str, list[str], list[list[int]], list[int], str, str]


def describe(row: dict[str, Any], features: Any) -> Row:
    digest = hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest()
    return row["image_id"], row["captions"], row["tokens"], list(features.shape), str(features.dtype), digest


def read_webdataset(root: Path, split: str) -> Iterator[Row]:
    shards = sorted(map(str, root.glob(f"{split}-*.tar")))
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        assert unquote(sample["__key__"]) == sample["json"]["image_id"]
        yield describe(sample["json"], sample["npy"])


def read_huggingface(root: Path, split: str) -> Iterator[Row]:
    rows = datasets.load_dataset(str(root), split=split)
    kind = rows.features["features"]
    assert isinstance(kind, (datasets.Array2D, datasets.List))
    streamed = datasets.load_dataset(str(root), split=split, streaming=True).with_format("numpy")
    arrays = rows.with_format("numpy", dtype=np.float16)
    for number, other in enumerate(streamed):
        row = {**rows[number], "features": None}
        assert np.array_equal(other["features"], arrays[number]["features"])
        yield describe(row, arrays[number]["features"])


def read_npy(root: Path, split: str) -> Iterator[Row]:
    for path in sorted(root.glob(f"{split}-*.npy")):
        array = np.load(path, mmap_mode="r")
        for row in pq.read_table(path.with_suffix(".parquet")).to_pylist():
            yield describe(row, array[row["row"]])


def read_arrow(root: Path, split: str) -> Iterator[Row]:
    for path in sorted(root.glob(f"{split}-*.arrow")):
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
            arrays = table["features"].combine_chunks().to_numpy_ndarray()
            for row, features in zip(table.drop_columns("features").to_pylist(), arrays, strict=True):
                yield describe(row, features)


READERS = {"webdataset": read_webdataset, "huggingface": read_huggingface, "npy": read_npy, "arrow": read_arrow}


def read_exports(out: Path) -> Any:
    """Reads the exports `OUT/FORMAT`."""
    splits = ("train", "val")
    return {name: {split: list(read(out / name, split)) for split in splits} for name, read in READERS.items()}


def read_side_shards(shards: Path, side: Path) -> Any:
    """Reads shards of images and their side shards in step."""
    found = []
    for path in sorted(shards.glob("*.tar")):
        own = webdataset.WebDataset(str(path), shardshuffle=False)
        added = webdataset.WebDataset(str(side / path.name), shardshuffle=False).decode()
        for sample, other in zip(own, added, strict=True):
            assert sample["__key__"] == other["__key__"]
            features = other.get("features.npy")
            digests = [data and hashlib.sha256(data).hexdigest() for data in (sample.get("jpg"), get_bytes(features))]
            found.append([sample["__key__"], *digests])
    return found


def get_bytes(features: Any) -> bytes | None:
    return None if features is None else np.ascontiguousarray(features).tobytes()


if __name__ == "__main__":
    # A warning is an error, but webdataset and datasets use functions that Python and fsspec will change.
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    arguments = list(map(Path, sys.argv[1:]))
    print(json.dumps(read_exports(*arguments) if len(arguments) == 1 else read_side_shards(*arguments)))
