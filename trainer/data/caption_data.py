"""Captions joined to the features of their images by key; features are never repeated, captions point at them.

captions.image_id → catalog.image_id → content key → position in the feature table
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.store import CaptionTable, Dataset
from features.store.caption_table import check_file_names
from features.store.merge import as_keys
from schemas.errors import CaptError, StoreError
from schemas.records import stack_keys
from schemas.table_config import SHORT_FINGERPRINT
from schemas.tables import KEY_BYTES, SPLITS
from trainer.data.table_selection import FeatureSource, TrainingTables

USED_SPLITS = tuple(split for split in SPLITS if split != "unused")


@dataclass(frozen=True)
class Captions:
    """The captions of one split, those of an image together; images in the order of their content keys.

    The order depends on what the captions and images are, not on how the store keeps them.

    Args:
        tokens: int32 array [tokens]. The captions' word ids, one caption after the other, from start to end.
        starts: int64 array [captions + 1]. Where each caption begins in `tokens`.
        image: int32 array [captions]. The image of each caption, ascending.
        keys: uint8 array [images, 32]. Content keys.
        rows: int64 array [images]. The images' positions in the feature table.
    """

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    image: NDArray[np.int32]
    keys: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.image)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each caption, start and end included: int64 array [captions]."""
        return np.diff(self.starts)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Where each image's captions begin: int64 array [images + 1]."""
        return np.searchsorted(self.image, np.arange(len(self.rows) + 1))

    @cached_property
    def longest(self) -> NDArray[np.int64]:
        """Tokens of each image's longest caption: int64 array [images]."""
        return np.maximum.reduceat(self.lengths, self.first[:-1]) if len(self) else np.zeros(0, np.int64)

    def tokens_of(self, number: int) -> NDArray[np.int32]:
        """The word ids of one caption, from start to end: int32 array [tokens]."""
        return self.tokens[self.starts[number] : self.starts[number + 1]]

    @property
    def max_words(self) -> int:
        """Words of the longest caption, start and end left out."""
        return int(self.lengths.max()) - 2

    @property
    def digest(self) -> str:
        """SHA-256 of images and tokens: equal for equal captions of equal images."""
        digest = hashlib.sha256()
        for array in (self.keys, self.image, self.starts, self.tokens):
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class CaptionData:
    """All captions that a run can use.

    Args:
        splits: dict. `Captions` by split: train, val, test.
        without_features: dict. Captions left out by split, because the table lacks their image.
        shared: int. Images that are both in train and in val or test.
    """

    splits: dict[str, Captions]
    without_features: dict[str, int]
    shared: int

    @property
    def train(self) -> Captions:
        """The captions to learn from."""
        return self.splits["train"]

    @property
    def validation_split(self) -> str | None:
        """The split to validate on: val, else test, else None."""
        return next((split for split in ("val", "test") if len(self.splits[split])), None)


def join_captions(tables: TrainingTables) -> CaptionData:
    """Captions joined to the features of their images.

    Args:
        tables: Tables. The datasets, their captions, and the features.

    Raises:
        CaptError: the train split has no caption, or none whose image the feature table holds.
        StoreError: captions are in another split than their images, or belong to other images.
    """
    parts = [_join(text, dataset, tables.features) for text, dataset in zip(tables.texts, tables.datasets, strict=True)]
    joined = _Joined(*(np.concatenate(columns) for columns in zip(*map(_columns, parts), strict=True)))
    splits = {split: _select(joined, joined.split == split) for split in USED_SPLITS}
    missing = {split: int(((joined.split == split) & (joined.row < 0)).sum()) for split in USED_SPLITS}
    if not len(splits["train"]):
        raise _nothing_to_learn(missing["train"], tables)
    held_out = [splits[split].keys for split in ("val", "test")]
    return CaptionData(splits, missing, shared_images(splits["train"].keys, held_out))


@dataclass(frozen=True)
class _Joined:
    """One row a caption: its key, split, length, and its image's content key and position (−1 for none).

    `tokens` are those of all captions, one after the other.
    """

    key: NDArray[Any]
    split: NDArray[Any]
    length: NDArray[np.int64]
    tokens: NDArray[np.int32]
    image: NDArray[np.uint8]
    row: NDArray[np.int64]


def _columns(joined: _Joined) -> tuple[NDArray[Any], ...]:
    return joined.key, joined.split, joined.length, joined.tokens, joined.image, joined.row


def check_splits(text: CaptionTable, captions: pa.Table, dataset: Dataset, catalog: pa.Table) -> None:
    """Refuse captions that are in another split than their images.

    Args:
        text: The captions' table,
        captions: its rows, with the columns `image_id` and `split`.
        dataset: The dataset,
        catalog: its catalog.

    Raises:
        StoreError: The splits differ.
    """
    place = pc.index_in(captions["image_id"], catalog["image_id"].combine_chunks())
    splits = pc.take(catalog["split"], place)
    differing = captions.filter(pc.fill_null(pc.not_equal(captions["split"], splits), False))
    if not len(differing):
        return
    image_id, split = differing["image_id"][0].as_py(), differing["split"][0].as_py()
    other = catalog["split"][pc.index(catalog["image_id"], image_id).as_py()].as_py()
    raise StoreError(
        f"{pc.count_distinct(differing['image_id']).as_py()} images have captions in another split than the dataset "
        f"{dataset.name} assigns: image {image_id} is {other} in the dataset and {split} in the caption table",
        location=f"caption table {text.fingerprint[:SHORT_FINGERPRINT]}",
        hint=f"run `capt prepare captions --dataset-name {dataset.name}` again and choose its --caption-table",
    )


def _join(text: CaptionTable, dataset: Dataset, features: FeatureSource) -> _Joined:
    captions, catalog = text.captions(), dataset.catalog()
    check_file_names(text, captions, dataset, catalog)
    check_splits(text, captions, dataset, catalog)
    keys = stack_keys(catalog)
    place = pc.index_in(captions.column("image_id"), catalog.column("image_id").combine_chunks())
    place = place.fill_null(-1).to_numpy().astype(np.int64)
    rows = np.append(features.lookup(keys), -1)
    tokens = captions.column("tokens").combine_chunks()
    return _Joined(
        key=as_keys(stack_keys(captions)),
        split=np.array(captions.column("split").to_pylist(), dtype=f"U{max(map(len, SPLITS))}"),
        length=tokens.value_lengths().to_numpy().astype(np.int64),
        tokens=tokens.flatten().to_numpy().astype(np.int32),
        image=np.concatenate([keys, np.zeros((1, KEY_BYTES), np.uint8)])[place],
        row=rows[place],
    )


def _select(joined: _Joined, mask: NDArray[np.bool_]) -> Captions:
    chosen = np.flatnonzero(mask & (joined.row >= 0))
    names = as_keys(joined.image[chosen])
    _, first, image = np.unique(names, return_index=True, return_inverse=True)
    order = np.lexsort((joined.key[chosen], image))
    ordered = chosen[order]
    starts = np.cumsum(joined.length) - joined.length
    lengths = joined.length[ordered]
    return Captions(
        tokens=joined.tokens[spans(starts[ordered], lengths)],
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        image=image[order].astype(np.int32),
        keys=joined.image[chosen][first],
        rows=joined.row[chosen][first],
    )


def spans(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of all spans, one after the other: start, start + 1, … start + length − 1 of each."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def shared_images(train: NDArray[np.uint8], held_out: Sequence[NDArray[np.uint8]]) -> int:
    """How many images to learn from are held out as well, by their content keys uint8 [N, 32]."""
    others = np.concatenate([as_keys(keys) for keys in held_out])
    return int(np.isin(as_keys(train), others).sum())


def _nothing_to_learn(missing: int, tables: TrainingTables) -> CaptError:
    names = ", ".join(dataset.name for dataset in tables.datasets)
    if missing:
        return CaptError(
            f"none of the {missing} captions to train on has features",
            location=names,
            hint="run `capt prepare features` on the images of the train split, or pick another --feature-table",
        )
    return CaptError("no caption is in the split train", location=names, hint="prepare captions of a train split")
