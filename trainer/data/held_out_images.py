"""Held-out images: those of a split that have features, with all that people said of them and where they lie.

captions.image_id → catalog row → content key → position in the feature table
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.store import Store
from features.store.caption_table import check_file_names
from schemas.errors import CaptError
from schemas.table_config import canonical_json
from schemas.tables import KEY_BYTES
from trainer.data.caption_data import check_splits
from trainer.data.table_selection import TrainingTables
from trainer.runs.metadata import CaptionerMetadata

ImageName = tuple[str, str]


@dataclass(frozen=True)
class HeldOutImages:
    """The images that a run is scored on, in the order of their content keys.

    Args:
        split: str. Their split.
        names: tuple of (dataset, image id).
        references: dict. All captions of each, as published, in the order of their ids.
        rows: int64 array [images]. Their positions in the feature table.
        catalog: dict. Their rows of `schemas.tables.CATALOG`.
        without_features: int. Images of the split left out because the feature table lacks them.
        without_image: int. Images of the split left out because the catalog lacks them.
    """

    split: str
    names: tuple[ImageName, ...]
    references: dict[ImageName, list[str]]
    rows: NDArray[np.int64]
    catalog: dict[ImageName, Mapping[str, Any]]
    without_features: int
    without_image: int

    @property
    def keys(self) -> NDArray[np.uint8]:
        """The content keys of the images, uint8 [N, 32]."""
        return np.frombuffer(b"".join(self.catalog[name]["key"] for name in self.names), np.uint8).reshape(
            -1, KEY_BYTES
        )

    @property
    def digest(self) -> str:
        """SHA-256 of images and references: equal for runs that are scored on the same."""
        told = sorted([*name, self.references[name]] for name in self.names)
        return hashlib.sha256(canonical_json(told)).hexdigest()


def run_tables(store: Store, record: CaptionerMetadata) -> TrainingTables:
    """The tables that a run was trained on, as the store has them now.

    Raises:
        StoreError: the store lacks one.
    """
    return TrainingTables(
        tuple(store.dataset(name) for name in record.datasets),
        tuple(store.caption_table(origin.fingerprint) for origin in record.text),
        store.feature_table(record.features.fingerprint),
    )


def load_held_out_images(tables: TrainingTables, split: str) -> HeldOutImages:
    """The images of a split, or, where nobody captioned any of `test`, those of `val`.

    Args:
        tables: Tables. The datasets, their captions, and the features.
        split: str. `train`, `val`, `test` or `unused`.

    Raises:
        CaptError: the split has no captions, or none whose image the feature table holds.
        StoreError: captions are in another split than their images, or belong to other images.
    """
    told = _references(tables, split)
    if not told and split == "test":
        split, told = "val", _references(tables, "val")
    rows = {
        (dataset.name, row["image_id"]): row
        for dataset in tables.datasets
        for row in _rows_of(dataset.catalog(), [image_id for name, image_id in told if name == dataset.name])
    }
    known = sorted((name for name in told if name in rows), key=lambda name: (rows[name]["key"], name))
    keys = np.frombuffer(b"".join(rows[name]["key"] for name in known), np.uint8).reshape(-1, KEY_BYTES)
    places = tables.features.lookup(keys)
    names = tuple(name for name, place in zip(known, places, strict=True) if place >= 0)
    if not names:
        raise _nothing_to_score(tables, split, len(told))
    return HeldOutImages(
        split=split,
        names=names,
        references={name: told[name] for name in names},
        rows=places[places >= 0],
        catalog={name: rows[name] for name in names},
        without_features=len(known) - len(names),
        without_image=len(told) - len(known),
    )


def _references(tables: TrainingTables, split: str) -> dict[ImageName, list[str]]:
    told: defaultdict[ImageName, list[str]] = defaultdict(list)
    for dataset, text in zip(tables.datasets, tables.texts, strict=True):
        captions = text.captions().select(["image_id", "caption_id", "split", "caption"])
        catalog = dataset.catalog()
        check_file_names(text, captions, dataset, catalog)
        check_splits(text, captions, dataset, catalog)
        rows = captions.filter(pc.equal(captions["split"], split)).to_pylist()
        for row in sorted(rows, key=lambda row: (len(row["caption_id"]), row["caption_id"])):
            told[dataset.name, row["image_id"]].append(row["caption"])
    return dict(told)


def _rows_of(catalog: pa.Table, image_ids: list[str]) -> list[dict[str, Any]]:
    chosen = pc.is_in(catalog["image_id"], value_set=pa.array(image_ids, pa.string()))
    return catalog.filter(chosen).to_pylist()


def _nothing_to_score(tables: TrainingTables, split: str, captioned: int) -> CaptError:
    names = ", ".join(dataset.name for dataset in tables.datasets)
    if captioned:
        return CaptError(
            f"none of the {captioned} captioned images of the split {split} has features",
            location=names,
            hint="run `capt prepare features` on them",
        )
    return CaptError(f"no caption is in the split {split}", location=names, hint="pick another with --split")
