"""Gives captions and the features of their images by number, for PyTorch and Grain: `capt.caption_source`.

    (seed, epoch, step) → caption numbers of a batch → one read of the distinct images → arrays

No framework is imported. `capt.keras_dataset` gives the same batches to tf.data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.store import FeatureTable, open_store
from features.store.data_sources import OpenedPerProcess
from schemas.errors import CaptError, UsageError
from trainer.data.caption_data import Captions, join_captions
from trainer.data.caption_order import Order, pad_captions, shuffle_captions, sort_captions, steps_per_epoch
from trainer.data.table_selection import select_tables
from trainer.models.model_specs import AnyInput


def caption_source(
    store: str | Path,
    split: Literal["train", "val", "test"] = "train",
    *,
    dataset: str | Sequence[str] = (),
    feature_table: str | None = None,
    caption_table: str | None = None,
) -> "CaptionSource":
    """Returns the captions of a split, with the features of their images, by number.

    The source is a map-style dataset for PyTorch and a random access data source for Grain. Worker processes can read
    it. The features of a store in a bucket are downloaded to the local cache first.

    Args:
        store: Store: a local directory, or an s3:// or gs:// URI.
        split: Split of the captions.
        dataset: Name of a dataset, or several. By default, the only one with captions.
        feature_table: Fingerprint of the feature table, or its beginning. By default, the only one that fits.
        caption_table: Fingerprint of the caption table, or its beginning. By default, the only one that fits.

    Raises:
        StoreError: No table fits, or several do.
        CaptError: The split has no captions of images with features.
        UsageError: The split is unknown.

    Example:
        source = capt.caption_source("store")
        batches = source.batches(batch_size=64, seed=0, epoch=3)
        loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2)
        dataset = grain.MapDataset.source(batches)
    """
    names = (dataset,) if isinstance(dataset, str) else dataset
    tables = select_tables(open_store(store), AnyInput(), names, feature_table, caption_table)
    data = join_captions(tables)
    if split not in data.splits:
        raise UsageError(f"unknown split {split!r}", location="split", hint=f"Use one of {', '.join(data.splits)}.")
    captions = data.splits[split]
    if not len(captions):
        location = ", ".join(one.name for one in tables.datasets)
        raise CaptError(f"the split {split} has no captions of images with features", location=location)
    tables.features.ensure_local(captions.rows)
    return CaptionSource(captions, tables.features)


class CaptionSource:
    """The captions of a split by number; open it with `capt.caption_source`.

    `source[number]` is a dict: `image_key`, the content hash of the image, 64 hexadecimal digits; `features`, float32
    [*shape]; `tokens`, the token IDs int32 [length] of one caption, with start and end tokens. The numbers are in the
    order of the images' content hashes.
    """

    def __init__(self, captions: Captions, features: FeatureTable) -> None:
        self.captions = captions
        self._features = OpenedPerProcess(features)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Returns several captions. PyTorch's DataLoader calls it with the numbers of a batch."""
        chosen = np.array([range(len(self))[number] for number in numbers], np.int64)
        images = self.captions.image[chosen]
        return [
            {
                "image_key": self.captions.keys[image].tobytes().hex(),
                "features": features,
                "tokens": self.captions.get_tokens(number).copy(),
            }
            for number, image, features in zip(chosen.tolist(), images, self.read_features(chosen), strict=True)
        ]

    def __repr__(self) -> str:
        return f"CaptionSource({len(self)} captions of {len(self.captions.rows)} images)"

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self._features.get().shape

    @property
    def max_input_length(self) -> int:
        """Number of input tokens of the longest caption, the start token included."""
        return self.captions.max_length + 1

    def read_features(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Reads the features of the images of captions, float32 [N, *shape]; each image is read once."""
        images, image = np.unique(self.captions.image[numbers], return_inverse=True)
        return self._features.get().read(self.captions.rows[images])[image].astype(np.float32, copy=False)

    def batches(
        self,
        batch_size: int = 64,
        *,
        seed: int = 0,
        epoch: int = 0,
        first_step: int = 0,
        shuffle: bool = True,
        length: int | None = None,
        drop_remainder: bool = False,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> "CaptionBatches":
        """Returns the batches of one epoch, in the order in which `capt.keras_dataset` has them.

        Batches are a function of seed, epoch and step, whatever reads them: to go on in the middle of an epoch, pass
        the step as `first_step`. Several processes that train together each read a part of every batch: rank 0 of 2
        has its captions 0, 2, 4 and so on.

        Args:
            batch_size: Captions per batch of all ranks together. One batch per epoch may have fewer.
            seed: Seed of the orders.
            epoch: Number of the epoch, from 0. Each has another order.
            first_step: Number of the first batch, from 0.
            shuffle: Whether the captions are shuffled; otherwise they are in order of length.
            length: Input tokens per caption. By default, that of the longest caption of the split.
            drop_remainder: Whether the smaller batch is left out.
            rank: Number of this process, from 0.
            num_ranks: Number of processes.

        Raises:
            UsageError: A number is out of range, a caption has more than `length` + 1 tokens, or a batch cannot be
                divided into `num_ranks` equal parts.
        """
        _check_at_least(1, batch_size=batch_size, num_ranks=num_ranks)
        _check_at_least(0, epoch=epoch, first_step=first_step, rank=rank)
        if rank >= num_ranks:
            raise UsageError(f"invalid rank {rank}", location="rank", hint=f"Use 0 to {num_ranks - 1}.")
        if batch_size % num_ranks:
            message = f"{batch_size} captions cannot be divided into {num_ranks} equal parts"
            raise UsageError(message, location="batch_size", hint=f"Use a multiple of {num_ranks}.")
        if len(self) % batch_size % num_ranks and not drop_remainder:
            message = f"the smaller batch has {len(self) % batch_size} captions, so ranks would have unequal parts"
            raise UsageError(message, location="drop_remainder", hint="Use drop_remainder=True.")
        width = self._check_length(length)
        return CaptionBatches(
            source=self,
            batch_size=batch_size,
            length=width,
            seed=seed if shuffle else None,
            epoch=epoch,
            first_step=first_step,
            drop_remainder=drop_remainder,
            rank=rank,
            num_ranks=num_ranks,
        )

    def _check_length(self, length: int | None) -> int:
        longest = self.max_input_length
        if length is not None and length < longest:
            message = f"the longest caption has {longest} input tokens, more than {length}"
            hint = f"Use at least {longest}, or prepare the captions with --max-length {max(length + 1, 3)}."
            raise UsageError(message, location="length", hint=hint)
        return longest if length is None else length


@dataclass(frozen=True, repr=False)
class CaptionBatches:
    """The batches of one epoch by number, from `CaptionSource.batches`: a map-style dataset and a data source.

    `batches[number]` is a dict: `features` float32 [N, *shape]; `tokens` int32 [N, T], the input tokens from the start
    token on; `targets` int32 [N, T], the next token of each, up to the end token. Padding is 0; a loss should ignore
    the targets 0.
    """

    source: CaptionSource
    batch_size: int
    length: int  # T
    seed: int | None  # None for the order of length
    epoch: int
    first_step: int
    drop_remainder: bool
    rank: int
    num_ranks: int

    def __len__(self) -> int:
        captions, size = self.source.captions, self.batch_size
        steps = len(captions) // size if self.drop_remainder else steps_per_epoch(captions, size)
        return max(0, steps - self.first_step)

    def __getitem__(self, number: int) -> dict[str, NDArray[Any]]:
        numbers = self._order[self.first_step + range(len(self))[number]][self.rank :: self.num_ranks]
        tokens = pad_captions(self.source.captions, numbers, multiple=self.length)
        return {
            "features": self.source.read_features(numbers),
            "tokens": np.ascontiguousarray(tokens[:, :-1]),
            "targets": np.ascontiguousarray(tokens[:, 1:]),
        }

    def __repr__(self) -> str:
        return f"CaptionBatches({len(self)} batches of {self.batch_size} captions, epoch {self.epoch})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_order"}

    @cached_property
    def _order(self) -> Order:
        captions, size = self.source.captions, self.batch_size
        if self.seed is None:
            order = sort_captions(captions, size)
        else:
            order = shuffle_captions(captions, size, self.seed, self.epoch)
        return [numbers for numbers in order if len(numbers) == size] if self.drop_remainder else order


def _check_at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise UsageError(f"invalid number {number}", location=name, hint=f"Use {least} or more.")
