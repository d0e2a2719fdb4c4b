"""Reads the references of train images: their captions as published."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.store import CaptionTable, Dataset
from features.store.merge import as_keys, find_keys
from schemas.records import stack_keys
from trainer.data.caption_data import Captions
from trainer.data.table_selection import TrainingTables

_TEXTS_AT_ONCE = 65536


@dataclass(frozen=True)
class TrainReferences:
    """The references of all train images, by image in the order of `Captions.rows`.

    Args:
        texts: The captions as published. Those of an image are adjacent.
        first: Number of the first reference of each image, and the number of references: int64 [images + 1].
    """

    texts: pa.ChunkedArray
    first: NDArray[np.int64]

    def __iter__(self) -> Iterator[str]:
        """Iterates over the texts."""
        for start in range(0, len(self.texts), _TEXTS_AT_ONCE):
            yield from self.texts.slice(start, _TEXTS_AT_ONCE).to_pylist()


def read_train_references(tables: TrainingTables, train: Captions) -> TrainReferences:
    """Reads the captions of the images of `train`, the train split of these tables."""
    pairs = list(zip(tables.caption_tables, tables.datasets, strict=True))
    captions = [_read_captions(table) for table, _ in pairs]
    image = np.concatenate(
        [_find_images(one, dataset, train) for one, (_, dataset) in zip(captions, pairs, strict=True)]
    )
    texts = pa.concat_tables(captions)["caption"]
    order = np.argsort(image, kind="stable")[np.count_nonzero(image < 0) :]
    counts = np.bincount(image[order], minlength=len(train.rows))
    return TrainReferences(texts.take(pa.array(order)), np.concatenate([[0], np.cumsum(counts)]))


def _read_captions(table: CaptionTable) -> pa.Table:
    captions = table.captions().select(["image_id", "split", "caption"])
    return captions.filter(pc.equal(captions["split"], "train"))


def _find_images(captions: pa.Table, dataset: Dataset, train: Captions) -> NDArray[np.int64]:
    """Returns the number of the image of each caption, int64 [captions]; −1 if `train` does not contain it."""
    catalog = dataset.catalog()
    row = pc.index_in(captions["image_id"], catalog["image_id"].combine_chunks()).fill_null(-1).to_numpy()
    images = find_keys(as_keys(train.keys), as_keys(stack_keys(catalog)))
    numbers: NDArray[np.int64] = np.append(images, -1)[row]
    return numbers
