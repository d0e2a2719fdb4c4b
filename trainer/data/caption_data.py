"""Joins captions to the features of their images.

    captions.image_id → catalog.image_id → content hash → position in the feature table

Captions refer to their image by number, so that features are never repeated.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.store import CaptionTable, Dataset, FeatureTable
from features.store.caption_table import check_file_names
from features.store.merge import as_keys
from schemas.errors import StoreError
from schemas.records import stack_keys
from schemas.table_config import PAD, SHORT_FINGERPRINT
from schemas.tables import KEY_BYTES, SPLITS
from trainer.data.table_selection import TrainingTables
from trainer.data.training_data import USED_SPLITS, TrainingData, no_training_data


@dataclass(frozen=True)
class Captions:
    """The captions of one split, by image in the order of content hashes, so independently of the store's shards."""

    tokens: NDArray[np.int32]  # token IDs of all captions, one after the other, with start and end tokens
    starts: NDArray[np.int64]  # index in `tokens` at which each caption starts [captions + 1]
    image: NDArray[np.int32]  # number of the image of each caption, ascending [captions]
    keys: NDArray[np.uint8]  # content hashes [images, 32]
    rows: NDArray[np.int64]  # positions of the images in the feature table [images]

    def __len__(self) -> int:
        return len(self.image)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per caption, with start and end tokens: int64 [captions]."""
        return np.diff(self.starts)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Number of the first caption of each image: int64 [images + 1]."""
        return np.searchsorted(self.image, np.arange(len(self.rows) + 1))

    @cached_property
    def longest(self) -> NDArray[np.int64]:
        """Number of tokens of the longest caption per image: int64 [images]."""
        return np.maximum.reduceat(self.lengths, self.first[:-1]) if len(self) else np.zeros(0, np.int64)

    def limit_images(self, count: int | None) -> "Captions":
        """Returns the captions of the first images, a random sample because content hashes determine the order.

        None: of all images.
        """
        if count is None or count >= len(self.rows):
            return self
        captions = self.first[count]
        return Captions(
            tokens=self.tokens[: self.starts[captions]],
            starts=self.starts[: captions + 1],
            image=self.image[:captions],
            keys=self.keys[:count],
            rows=self.rows[:count],
        )

    def get_tokens(self, number: int) -> NDArray[np.int32]:
        """Returns the token IDs of one caption, with start and end tokens: int32 [tokens]."""
        return self.tokens[self.starts[number] : self.starts[number + 1]]

    def count_targets(self, numbers: NDArray[np.int64], ignored_ids: Sequence[int] = (PAD,)) -> int:
        """Counts the tokens of captions that are predicted: all but the start token and `ignored_ids`."""
        targets = self.tokens[spans(self.starts[numbers] + 1, self.lengths[numbers] - 1)]
        return int(np.isin(targets, ignored_ids, invert=True).sum())

    @property
    def max_length(self) -> int:
        """Number of tokens of the longest caption, without start and end tokens."""
        return int(self.lengths.max()) - 2

    @property
    def digest(self) -> str:
        """SHA-256 of images and tokens."""
        digest = hashlib.sha256()
        for array in (self.keys, self.image, self.starts, self.tokens):
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def join_captions(tables: TrainingTables) -> TrainingData[Captions]:
    """Joins the captions of all datasets to the features of their images.

    Raises:
        CaptError: The train split has no caption whose image is in the feature table.
        StoreError: Captions are in another split than their images, or belong to other images.
    """
    pairs = zip(tables.caption_tables, tables.datasets, strict=True)
    parts = [_join(captions, dataset, tables.features) for captions, dataset in pairs]
    joined = _Joined(*map(np.concatenate, zip(*parts, strict=True)))
    splits = {split: _select(joined, joined.split == split) for split in USED_SPLITS}
    missing = {split: int(((joined.split == split) & (joined.row < 0)).sum()) for split in USED_SPLITS}
    if not len(splits["train"]):
        raise no_training_data(tables, missing["train"], "captions", "Prepare the captions of a train split.")
    return TrainingData(splits, {"without_features": missing})


class _Joined(NamedTuple):
    """One row per caption: key, split, length, and the content hash and position (−1 if missing) of its image."""

    key: NDArray[Any]
    split: NDArray[Any]
    length: NDArray[np.int64]
    tokens: NDArray[np.int32]  # of all captions, one after the other
    image: NDArray[np.uint8]
    row: NDArray[np.int64]


def check_captions(text: CaptionTable, captions: pa.Table, dataset: Dataset, catalog: pa.Table) -> None:
    """Raises StoreError if captions are in another split than their images, or belong to other images."""
    check_file_names(text, captions, dataset, catalog)
    splits = pc.take(catalog["split"], pc.index_in(captions["image_id"], catalog["image_id"].combine_chunks()))
    differing = captions.filter(pc.fill_null(pc.not_equal(captions["split"], splits), False))
    if not len(differing):
        return
    image_id, split = differing["image_id"][0].as_py(), differing["split"][0].as_py()
    other = catalog["split"][pc.index(catalog["image_id"], image_id).as_py()].as_py()
    raise StoreError(
        f"{pc.count_distinct(differing['image_id']).as_py()} images have captions in another split than the dataset "
        f"{dataset.name} assigns: image {image_id} is {other} in the dataset and {split} in the caption table",
        location=f"caption table {text.fingerprint[:SHORT_FINGERPRINT]}",
        hint=f"Run `capt prepare captions … --dataset-name {dataset.name}` again and choose its --caption-table.",
    )


def _join(text: CaptionTable, dataset: Dataset, features: FeatureTable) -> _Joined:
    captions, catalog = text.captions(), dataset.catalog()
    check_captions(text, captions, dataset, catalog)
    keys = stack_keys(catalog)
    image = pc.index_in(captions.column("image_id"), catalog.column("image_id").combine_chunks())
    image = image.fill_null(-1).to_numpy().astype(np.int64)
    tokens = captions.column("tokens").combine_chunks()
    return _Joined(
        key=as_keys(stack_keys(captions)),
        split=np.array(captions.column("split").to_pylist(), dtype=f"U{max(map(len, SPLITS))}"),
        length=tokens.value_lengths().to_numpy().astype(np.int64),
        tokens=tokens.flatten().to_numpy().astype(np.int32),
        image=np.concatenate([keys, np.zeros((1, KEY_BYTES), np.uint8)])[image],
        row=np.append(features.lookup(keys), -1)[image],
    )


def _select(joined: _Joined, mask: NDArray[np.bool_]) -> Captions:
    chosen = np.flatnonzero(mask & (joined.row >= 0))
    names = as_keys(joined.image[chosen])
    _, first, image = np.unique(names, return_index=True, return_inverse=True)
    order = np.lexsort((joined.key[chosen], image))
    ordered = chosen[order]
    lengths = joined.length[ordered]
    return Captions(
        tokens=joined.tokens[spans((np.cumsum(joined.length) - joined.length)[ordered], lengths)],
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        image=image[order].astype(np.int32),
        keys=joined.image[chosen][first],
        rows=joined.row[chosen][first],
    )


def spans(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenates the ranges from each start to start + length − 1."""
    before = np.cumsum(lengths) - lengths
    numbers: NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return numbers
