"""Leaks: images whose content is in a train split and in a test split, of one dataset or of two."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import CATALOG

_LEAKING = ("train", "test")


@dataclass(frozen=True)
class LeakedImage:
    """One content that is learned from and tested on.

    Args:
        key: bytes [32]. The content's key.
        train: tuple of str. The images of train splits that have it, each as `dataset/image_id`.
        test: tuple of str. The images of test splits that have it.
    """

    key: bytes
    train: tuple[str, ...]
    test: tuple[str, ...]


def find_leakage(catalogs: Mapping[str, pa.Table]) -> list[LeakedImage]:
    """The contents that are in train and in test, by key.

    Args:
        catalogs: Mapping from a dataset's name to its rows of `schemas.tables.CATALOG`.
    """
    train, test = (_keys(catalogs.values(), split) for split in _LEAKING)
    shared = train.filter(pc.is_in(train, value_set=test)).unique()
    named: dict[bytes, dict[str, list[str]]] = {key: {split: [] for split in _LEAKING} for key in shared.to_pylist()}
    for name, catalog in catalogs.items():
        for row in catalog.filter(pc.is_in(catalog["key"], value_set=shared)).to_pylist():
            if row["split"] in _LEAKING:
                named[row["key"]][row["split"]].append(f"{name}/{row['image_id']}")
    return [LeakedImage(key, tuple(images["train"]), tuple(images["test"])) for key, images in sorted(named.items())]


def _keys(catalogs: Iterable[pa.Table], split: str) -> pa.Array:
    chunks = [
        chunk for catalog in catalogs for chunk in catalog.filter(pc.equal(catalog["split"], split))["key"].chunks
    ]
    return pa.chunked_array(chunks, CATALOG.arrow_schema().field("key").type).combine_chunks()
