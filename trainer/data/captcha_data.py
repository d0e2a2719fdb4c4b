"""Joins labels to the pixels of their images.

labels.image_id → catalog.image_id → content hash → position in the feature table
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.store import Dataset
from features.store.merge import as_keys
from schemas.records import stack_keys
from trainer.data.held_out_images import HeldOutImages, ImageName, join_references, no_held_out_images
from trainer.data.table_selection import FeatureSource, TrainingTables
from trainer.data.training_data import USED_SPLITS, TrainingData, count_shared_images, no_training_data
from trainer.models.charset import encode


@dataclass(frozen=True)
class LabelledImages:
    """The labeled images of one split, in the order of their content hashes.

    Args:
        names: (dataset, image ID) of each image.
        labels: Label of each image.
        keys: Content hashes, uint8 [images, 32].
        rows: Positions in the feature table, int64 [images].
    """

    names: tuple[ImageName, ...]
    labels: tuple[str, ...]
    keys: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def max_length(self) -> int:
        """Number of characters of the longest label."""
        return max(map(len, self.labels))

    def encode(self, length: int) -> NDArray[np.int32]:
        """Encodes the labels as character IDs int32 [images, length], padded with 0."""
        ids = encode(self.labels)
        return np.pad(ids, ((0, 0), (0, length - ids.shape[1])))

    def first(self, count: int | None) -> "LabelledImages":
        """Returns the first images, a random sample because content hashes determine the order; None: all."""
        return LabelledImages(self.names[:count], self.labels[:count], self.keys[:count], self.rows[:count])

    @property
    def digest(self) -> str:
        """SHA-256 of images and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.keys).tobytes())
        digest.update("\n".join(self.labels).encode())
        return digest.hexdigest()


def join_labels(tables: TrainingTables) -> TrainingData[LabelledImages]:
    """Joins the labels of all datasets to the pixels of their images.

    Raises:
        CaptError: The train split has no labeled image with pixels.
    """
    joined = [_join(dataset, tables.features) for dataset in tables.datasets]
    parts = {split: [one.select(one.split == split) for one in joined] for split in USED_SPLITS}
    splits = {split: _concatenate(parts[split]) for split in USED_SPLITS}
    skipped = {
        "without_label": {split: sum(one.without_label for one in parts[split]) for split in USED_SPLITS},
        "without_features": {split: sum(one.without_features for one in parts[split]) for split in USED_SPLITS},
    }
    if not len(splits["train"]):
        hint = "Run `capt prepare captcha` with the --labels of a train split."
        raise no_training_data(tables, skipped["without_features"]["train"], "labelled images", hint)
    return TrainingData(splits, skipped, count_shared_images(splits))


def load_labelled_images(tables: TrainingTables, split: str, labels: Mapping[str, str] | None = None) -> HeldOutImages:
    """Loads the labeled images of a split. If no image of test has a label, those of val are loaded instead.

    Args:
        tables: The datasets with their labels, and the pixels.
        split: `train`, `val`, `test` or `unused`.
        labels: Labels by image ID, which replace the labels of the datasets.

    Raises:
        CaptError: No image of the split has a label and pixels.
    """
    stored = [_join(dataset, tables.features) for dataset in tables.datasets]
    joined = [one.relabel(labels or {}) for one in stored]
    if split == "test" and not any((one.label[one.split == split] != "").any() for one in joined):
        split = "val"
    parts = [one.select(one.split == split) for one in joined]
    before = [one.select(one.split == split) for one in stored]
    differing = sum(
        int(((old.label != "") & (old.label != new.label)).sum()) for old, new in zip(before, parts, strict=True)
    )
    skipped = {
        "without_label": sum(one.without_label for one in parts),
        "differing_labels": differing,
        "unused_labels": len(set(labels or ()).difference(*(one.name.tolist() for one in parts))),
    }
    references = {
        (str(dataset), str(name)): [str(label)]
        for one in parts
        for dataset, name, label in zip(one.dataset, one.name, one.label, strict=True)
        if label
    }
    held_out = join_references(tables, split, references, skipped)
    if not held_out.names:
        raise no_held_out_images(
            tables, f"no image of the split {split} has a label", "Add --labels, or choose another --split."
        )
    return held_out


@dataclass(frozen=True)
class _Joined:
    """One row per image of a dataset: the label is "" and the position −1 if missing."""

    dataset: NDArray[np.object_]
    name: NDArray[np.object_]
    key: NDArray[np.uint8]
    split: NDArray[np.object_]
    label: NDArray[np.object_]
    row: NDArray[np.int64]

    @property
    def without_label(self) -> int:
        return int((self.label == "").sum())

    @property
    def without_features(self) -> int:
        return int(((self.label != "") & (self.row < 0)).sum())

    def select(self, mask: NDArray[np.bool_]) -> "_Joined":
        return _Joined(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})

    def relabel(self, labels: Mapping[str, str]) -> "_Joined":
        pairs = zip(self.name, self.label, strict=True)
        return replace(self, label=np.array([labels.get(name, label) for name, label in pairs], object))


def _join(dataset: Dataset, features: FeatureSource) -> _Joined:
    labels, catalog = dataset.labels(), dataset.catalog()
    label = np.append(np.array(labels["word"].to_pylist(), object), "")
    number = pc.index_in(catalog["image_id"], labels["image_id"].combine_chunks()).fill_null(-1)
    keys = stack_keys(catalog)
    return _Joined(
        dataset=np.full(len(keys), dataset.name, object),
        name=np.array(catalog["image_id"].to_pylist(), object),
        key=keys,
        split=np.array(catalog["split"].to_pylist(), object),
        label=label[number.to_numpy().astype(np.int64)],
        row=features.lookup(keys),
    )


def _concatenate(parts: Sequence[_Joined]) -> LabelledImages:
    """Orders the usable images of several datasets by content hash, equal ones by name."""
    usable = [part.select((part.label != "") & (part.row >= 0)) for part in parts]
    columns = ([getattr(part, name) for part in usable] for name in ("dataset", "name", "key", "label", "row"))
    dataset, name, key, label, row = (np.concatenate(column) for column in columns)
    order = np.lexsort((name.astype(str), dataset.astype(str), as_keys(key)))
    names = tuple(zip(dataset[order], name[order], strict=True))
    return LabelledImages(names, tuple(label[order]), key[order], row[order])
