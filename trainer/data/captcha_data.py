"""Labelled images: words joined to the pixels of their images by key.

labels.image_id → catalog.image_id → content key → position in the feature table
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.store import Dataset, Store
from features.store.merge import as_keys
from schemas.errors import CaptError
from schemas.records import stack_keys
from trainer.data.caption_data import USED_SPLITS, shared_images
from trainer.data.held_out_images import ImageName
from trainer.data.table_selection import FeatureSource, LabelledTables
from trainer.models.charset import encode
from trainer.runs.metadata import RecognizerMetadata


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split with the words that they say, in the order of their content keys.

    Args:
        names: tuple of (dataset, image id).
        words: tuple of str. What each says.
        keys: uint8 array [images, 32]. Content keys.
        rows: int64 array [images]. Positions in the feature table.
    """

    names: tuple[ImageName, ...]
    words: tuple[str, ...]
    keys: NDArray[np.uint8]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def longest(self) -> int:
        """Letters of the longest word."""
        return max(map(len, self.words))

    def ids(self, longest: int) -> NDArray[np.int32]:
        """The words as letter ids int32 [images, longest], padded with 0; `longest` is at least that of the words."""
        ids = encode(self.words)
        return np.pad(ids, ((0, 0), (0, longest - ids.shape[1])))

    def first(self, count: int | None) -> "LabelledImages":
        """The first `count` images, which their keys make as good as drawn; None for all."""
        if count is None:
            return self
        return LabelledImages(self.names[:count], self.words[:count], self.keys[:count], self.rows[:count])

    @property
    def digest(self) -> str:
        """SHA-256 of images and words: equal for equal words of equal images."""
        digest = hashlib.sha256(np.ascontiguousarray(self.keys).tobytes())
        digest.update("\n".join(self.words).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class CaptchaData:
    """All labelled images that a run can use.

    Args:
        splits: dict. `LabelledImages` by split: train, val, test.
        without_label: dict. Images left out by split, because nobody says what their word is.
        without_features: dict. Labelled images left out by split, because the table lacks them.
        shared: int. Images that are both in train and in val or test.
    """

    splits: dict[str, LabelledImages]
    without_label: dict[str, int]
    without_features: dict[str, int]
    shared: int

    @property
    def train(self) -> LabelledImages:
        """The images to learn from."""
        return self.splits["train"]

    @property
    def validation_split(self) -> str | None:
        """The split to validate on: val, else test, else None."""
        return next((split for split in ("val", "test") if len(self.splits[split])), None)


def join_labels(tables: LabelledTables) -> CaptchaData:
    """Words joined to the pixels of their images.

    Args:
        tables: LabelledTables. The datasets with their words, and the pixels.

    Raises:
        CaptError: no image of the train split has a word and pixels.
    """
    joined = [_join(dataset, tables.features) for dataset in tables.datasets]
    of_split = {split: [one.of(split) for one in joined] for split in USED_SPLITS}
    splits = {split: _in_order([part.with_pixels() for part in parts]) for split, parts in of_split.items()}
    data = CaptchaData(
        splits=splits,
        without_label={split: _count(parts, _has_no_word) for split, parts in of_split.items()},
        without_features={split: _count(parts, _has_no_pixels) for split, parts in of_split.items()},
        shared=shared_images(splits["train"].keys, [splits[split].keys for split in ("val", "test")]),
    )
    if not len(data.train):
        raise _nothing_to_learn(data, tables)
    return data


@dataclass(frozen=True)
class HeldOutLabels:
    """The images that a run is scored on.

    Args:
        split: str. Their split.
        images: LabelledImages. The images with their words.
        without_label: int. Images of the split left out because nobody says what their word is.
        without_features: int. Images of the split left out because the feature table lacks them.
        differing: int. Images whose word is another in the store than in what was told.
        unused: int. Words that were told of what is no image of the split.
    """

    split: str
    images: LabelledImages
    without_label: int
    without_features: int
    differing: int
    unused: int


def labelled_tables(store: Store, record: RecognizerMetadata) -> LabelledTables:
    """The tables that a run was trained on, as the store has them now; StoreError where it lacks one."""
    return LabelledTables(
        tuple(store.dataset(name) for name in record.datasets), store.feature_table(record.features.fingerprint)
    )


def load_held_out_labels(tables: LabelledTables, split: str, told: Mapping[str, str] | None = None) -> HeldOutLabels:
    """The images of a split that have a word and pixels, or, where nobody says a word of `test`, those of `val`.

    Args:
        tables: LabelledTables. The datasets with their words, and the pixels.
        split: str. `train`, `val`, `test` or `unused`.
        told: mapping of image id to word, or None. Words that the datasets do not know; they go before theirs.

    Raises:
        CaptError: no image of the split has a word and pixels.
    """
    joined = [_join(dataset, tables.features) for dataset in tables.datasets]
    known = [one.told(told) for one in joined] if told else joined
    parts = [one.of(split) for one in known]
    if split == "test" and not any((part.word != "").any() for part in parts):
        split, parts = "val", [one.of("val") for one in known]
    images = _in_order([part.with_pixels() for part in parts])
    if not len(images):
        names = ", ".join(dataset.name for dataset in tables.datasets)
        raise CaptError(
            f"no image of the split {split} has a word",
            location=names,
            hint="name them with --labels, or another --split",
        )
    return HeldOutLabels(
        split=split,
        images=images,
        without_label=_count(parts, _has_no_word),
        without_features=_count(parts, _has_no_pixels),
        differing=_count(
            [one.of(split) for one in joined], lambda part: _differ(part.word, part.told(told or {}).word)
        ),
        unused=len(set(told or ()).difference(*(part.name.tolist() for part in parts))),
    )


def _has_no_word(part: "_Joined") -> NDArray[np.bool_]:
    return part.word == ""


def _has_no_pixels(part: "_Joined") -> NDArray[np.bool_]:
    return (part.word != "") & (part.row < 0)


def _differ(one: NDArray[np.object_], other: NDArray[np.object_]) -> NDArray[np.bool_]:
    return (one != "") & (one != other)


def _count(parts: Sequence["_Joined"], is_counted: Callable[["_Joined"], NDArray[np.bool_]]) -> int:
    return sum(int(is_counted(part).sum()) for part in parts)


@dataclass(frozen=True)
class _Joined:
    """One row an image of a dataset: its id, content key, split, word ("" for none) and position (−1 for none)."""

    dataset: NDArray[np.object_]
    name: NDArray[np.object_]
    key: NDArray[np.uint8]
    split: NDArray[np.object_]
    word: NDArray[np.object_]
    row: NDArray[np.int64]

    def location(self, mask: NDArray[np.bool_]) -> "_Joined":
        """Some of the rows."""
        columns = (self.dataset, self.name, self.key, self.split, self.word, self.row)
        return _Joined(*(column[mask] for column in columns))

    def of(self, split: str) -> "_Joined":
        """The rows of a split."""
        return self.location(self.split == split)

    def with_pixels(self) -> "_Joined":
        """The rows that have a word and a place in the feature table."""
        return self.location((self.word != "") & (self.row >= 0))

    def told(self, words: Mapping[str, str]) -> "_Joined":
        """The same, with the words that are told in place of those known."""
        pairs = zip(self.name, self.word, strict=True)
        return replace(self, word=np.array([words.get(name, word) for name, word in pairs], object))


def _join(dataset: Dataset, features: FeatureSource) -> _Joined:
    labels, catalog = dataset.labels(), dataset.catalog()
    words = np.append(np.array(labels["word"].to_pylist(), object), "")
    place = pc.index_in(catalog["image_id"], labels["image_id"].combine_chunks()).fill_null(-1)
    keys = stack_keys(catalog)
    return _Joined(
        dataset=np.full(len(keys), dataset.name, object),
        name=np.array(catalog["image_id"].to_pylist(), object),
        key=keys,
        split=np.array(catalog["split"].to_pylist(), object),
        word=words[place.to_numpy().astype(np.int64)],
        row=features.lookup(keys),
    )


def _in_order(parts: Sequence[_Joined]) -> LabelledImages:
    """The images of several datasets by content key, equal ones by name."""
    columns = ([getattr(part, name) for part in parts] for name in ("dataset", "name", "key", "word", "row"))
    dataset, name, key, word, row = (np.concatenate(column) for column in columns)
    order = np.lexsort((name.astype(str), dataset.astype(str), as_keys(key)))
    names = tuple(zip(dataset[order], name[order], strict=True))
    return LabelledImages(names, tuple(word[order]), key[order], row[order])


def _nothing_to_learn(data: CaptchaData, tables: LabelledTables) -> CaptError:
    names = ", ".join(dataset.name for dataset in tables.datasets)
    missing = data.without_features["train"]
    if missing:
        return CaptError(
            f"none of the {missing} labelled images to train on has pixels",
            location=names,
            hint="run `capt prepare captcha` on them, or pick another table with --feature-table",
        )
    return CaptError("no image of the split train has a word", location=names, hint="prepare them with --labels")
