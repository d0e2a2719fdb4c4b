"""Reads labels, and joins them to the pixels of their images.

labels.image_id → catalog.image_id → content hash → position in the feature table
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.store import Dataset, FeatureTable
from features.store.merge import as_keys
from features.text.charset import Charset, normalize_label
from features.text.visual_order import encode_visually
from schemas.errors import UsageError
from schemas.records import stack_keys
from trainer.data.held_out_images import HeldOutImages, ImageName, join_references, no_held_out_images
from trainer.data.table_selection import TrainingTables
from trainer.data.training_data import USED_SPLITS, TrainingData, no_training_data


@dataclass(frozen=True)
class LabelledImages:
    """The labeled images of one split, in the order of their content hashes."""

    names: tuple[ImageName, ...]  # (dataset, image ID)
    labels: tuple[str, ...]
    keys: NDArray[np.uint8]  # content hashes [images, 32]
    rows: NDArray[np.int64]  # positions in the feature table [images]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def max_length(self) -> int:
        """Number of characters of the longest label."""
        return max(map(len, self.labels))

    def encode(self, charset: Charset, length: int) -> NDArray[np.int32]:
        """Encodes the labels as character IDs int32 [images, length], from left to right, padded with 0."""
        ids = encode_visually(charset, self.labels)
        return np.pad(ids, ((0, 0), (0, length - ids.shape[1])))

    def first(self, count: int | None) -> "LabelledImages":
        """Returns the first images, a random sample because content hashes determine the order; None: all."""
        return LabelledImages(self.names[:count], self.labels[:count], self.keys[:count], self.rows[:count])

    def select(self, chosen: NDArray[np.bool_]) -> "LabelledImages":
        """Returns the images that are chosen, bool [images]."""
        names, labels = tuple(compress(self.names, chosen)), tuple(compress(self.labels, chosen))
        return LabelledImages(names, labels, self.keys[chosen], self.rows[chosen])

    @property
    def digest(self) -> str:
        """SHA-256 of images and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.keys).tobytes())
        digest.update("\n".join(self.labels).encode())
        return digest.hexdigest()


def parse_id_range(text: str) -> range:
    """Parses `--ids`: image numbers FROM:TO, such as `120000:140000`. TO is excluded."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        hint = "Use FROM:TO, such as 120000:140000; TO is excluded."
        raise UsageError(f"{text!r} is not a range", location="--ids", hint=hint)
    return range(int(first), int(last))


def join_labels(tables: TrainingTables) -> TrainingData[LabelledImages]:
    """Joins the labels of all datasets to the pixels of their images; CaptError if the train split has no pair."""
    joined = [_join(dataset, tables.features) for dataset in tables.datasets]
    parts = {split: [one.select(one.split == split) for one in joined] for split in USED_SPLITS}
    splits = {split: _concatenate(parts[split]) for split in USED_SPLITS}
    skipped = {
        "without_label": {split: sum(one.without_label for one in parts[split]) for split in USED_SPLITS},
        "without_features": {
            split: sum(int(((one.label != "") & (one.row < 0)).sum()) for one in parts[split]) for split in USED_SPLITS
        },
    }
    if not len(splits["train"]):
        hint = "Run `capt prepare captcha` with the --labels of a train split."
        raise no_training_data(tables, skipped["without_features"]["train"], "labelled images", hint)
    return TrainingData(splits, skipped)


def load_labelled_images(
    tables: TrainingTables, split: str, folds_case: Callable[[str], bool], labels: Mapping[str, str] | None = None
) -> HeldOutImages:
    """Loads the labeled images of a split. If no image of test has a label, those of val are loaded instead.

    `labels` by image ID replace the labels of the datasets. Case is folded in those of the datasets for whose name
    `folds_case` returns true.

    Raises:
        CaptError: No image of the split has a label and pixels.
    """
    given = labels or {}
    is_folded = [folds_case(dataset.name) for dataset in tables.datasets]
    stored = [
        _normalize_labels(_join(dataset, tables.features), fold_case)
        for dataset, fold_case in zip(tables.datasets, is_folded, strict=True)
    ]
    joined = [_replace_labels(one, given, fold_case) for one, fold_case in zip(stored, is_folded, strict=True)]
    if split == "test" and not any((one.label[one.split == split] != "").any() for one in joined):
        split = "val"
    parts = [one.select(one.split == split) for one in joined]
    before = [one.label[one.split == split] for one in stored]
    skipped = {
        "without_label": sum(one.without_label for one in parts),
        "differing_labels": sum(
            int(((old != "") & (old != new.label)).sum()) for old, new in zip(before, parts, strict=True)
        ),
        "unused_labels": len(set(given).difference(*(one.name.tolist() for one in parts))),
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


class _Joined(NamedTuple):
    """One row per image of a dataset: the label is "" and the position −1 if missing."""

    dataset: NDArray[Any]
    name: NDArray[Any]
    key: NDArray[Any]
    split: NDArray[Any]
    label: NDArray[Any]
    row: NDArray[Any]

    @property
    def without_label(self) -> int:
        return int((self.label == "").sum())

    def select(self, rows: NDArray[Any]) -> "_Joined":
        return _Joined(*(column[rows] for column in self))


def _join(dataset: Dataset, features: FeatureTable) -> _Joined:
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


def _normalize_labels(joined: _Joined, fold_case: bool) -> _Joined:
    """Normalizes the labels; a missing label stays ""."""
    return joined._replace(label=np.array([normalize_label(one, fold_case=fold_case) for one in joined.label], object))


def _replace_labels(joined: _Joined, labels: Mapping[str, str], fold_case: bool) -> _Joined:
    """Replaces the labels of the images that `labels` names."""
    own = zip(joined.name, joined.label, strict=True)
    new = [normalize_label(labels[name], fold_case=fold_case) if name in labels else label for name, label in own]
    return joined._replace(label=np.array(new, object))


def _concatenate(parts: Sequence[_Joined]) -> LabelledImages:
    """Orders the usable images of several datasets by content hash, equal ones by name."""
    usable = _Joined(*map(np.concatenate, zip(*parts, strict=True)))
    usable = usable.select((usable.label != "") & (usable.row >= 0))
    one = usable.select(np.lexsort((usable.name.astype(str), usable.dataset.astype(str), as_keys(usable.key))))
    return LabelledImages(tuple(zip(one.dataset, one.name, strict=True)), tuple(one.label), one.key, one.row)
