"""What a run saw, or would see: every image with its content, its split and all that people said of it.

    dataset, image_id, key, split, told_id, told      a row a caption, or a word

A model keeps this of its champion, so that new data is compared with it after the datasets have moved on.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.io.atomic_files import atomic_write
from features.store import Dataset, FeatureTable, Store
from features.store.file_name_check import check_file_names
from schemas.errors import CaptError, CorruptFileError
from schemas.records import content_keys
from schemas.table_config import canonical_json
from trainer.data.held_out_images import ImageName
from trainer.evaluation.paired_evaluation import CommonImages

_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("image_id", pa.string()),
        ("key", pa.binary()),
        ("split", pa.string()),
        ("told_id", pa.string()),
        ("told", pa.string()),
    ]
)
_ORDER = [(name, "ascending") for name in ("dataset", "image_id", "told_id")]


class DataSnapshot:
    """What a run saw.

    Args:
        rows: pa.Table. A row a caption or word, in any order.
    """

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows.select(_SCHEMA.names).cast(_SCHEMA).sort_by(_ORDER).combine_chunks()

    @classmethod
    def of_captions(cls, store: Store, names: Iterable[str], texts: Iterable[str], features: str) -> "DataSnapshot":
        """The captions of datasets in a store whose images have features there.

        Args:
            store: Store. The store.
            names: iterable of str. The datasets.
            texts: iterable of str. The fingerprint of the text table of each.
            features: str. The fingerprint of the feature table.
        """
        table = store.features(features)
        parts = []
        for name, text in zip(names, texts, strict=True):
            dataset, captioned = store.dataset(name), store.text(text)
            captions = captioned.captions().select(["image_id", "caption_id", "caption"])
            check_file_names(captioned, captions, dataset, dataset.catalog())
            told = captions.rename_columns(["image_id", "told_id", "told"])
            parts.append(_joined(dataset, told, table))
        return cls(pa.concat_tables(parts))

    @classmethod
    def of_words(cls, store: Store, names: Iterable[str], features: str) -> "DataSnapshot":
        """The words of datasets of CAPTCHAs in a store whose images have pixels there; as `of_captions`."""
        table = store.features(features)
        parts = []
        for name in names:
            dataset = store.dataset(name)
            labels = dataset.labels().rename_columns(["image_id", "told"])
            parts.append(_joined(dataset, labels.append_column("told_id", labels["image_id"]), table))
        return cls(pa.concat_tables(parts))

    @classmethod
    def load(cls, path: Path) -> "DataSnapshot":
        """What `save` wrote; CorruptFileError where it cannot be read."""
        try:
            return cls(pq.read_table(path, schema=_SCHEMA))
        except (OSError, pa.ArrowException) as error:
            raise CorruptFileError(f"what the run saw cannot be read: {error}", location=str(path)) from None

    def save(self, path: Path) -> None:
        """Write it as Parquet."""
        with atomic_write(path) as temporary:
            pq.write_table(self.rows, temporary)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, whatever the order."""
        digest = hashlib.sha256()
        for batch in self.rows.to_batches(max_chunksize=1 << 14):
            columns = [column.to_pylist() for column in batch.columns]
            columns[2] = [key.hex() for key in columns[2]]
            digest.update(canonical_json(list(zip(*columns, strict=True))))
        return digest.hexdigest()

    def images(self) -> dict[ImageName, bytes]:
        """The content keys of all images."""
        names = zip(self.rows["dataset"].to_pylist(), self.rows["image_id"].to_pylist(), strict=True)
        return dict(zip(names, self.rows["key"].to_pylist(), strict=True))

    def told(self) -> dict[tuple[str, str, str], str]:
        """What is told, by dataset, image id and its own id."""
        ids = (self.rows[name].to_pylist() for name in ("dataset", "image_id", "told_id"))
        return dict(zip(zip(*ids, strict=True), self.rows["told"].to_pylist(), strict=True))

    def held_out(self) -> CommonImages:
        """The images of the test split, or, where it has none, of val; CaptError where there is neither.

        Those whose content is in the train split as well are left out.
        """
        learned = pc.unique(self._of("train")["key"])
        for split in ("test", "val"):
            rows = self._of(split)
            rows = rows.filter(pc.invert(pc.is_in(rows["key"], value_set=learned)))
            if len(rows):
                return _images(rows)
        raise CaptError("neither test nor val has an image to score a run on", hint="add data of either split")

    def learns_from(self, images: CommonImages) -> list[bool]:
        """Of each image whether its content is in the train split."""
        learned = set(self._of("train")["key"].to_pylist())
        return [key in learned for key in images.keys]

    def _of(self, split: str) -> pa.Table:
        return self.rows.filter(pc.equal(self.rows["split"], split))


def _joined(dataset: Dataset, told: pa.Table, features: FeatureTable) -> pa.Table:
    """What is told of a dataset's images, with their keys and splits, of those that have features."""
    catalog = dataset.catalog().select(["image_id", "key", "split"])
    if len(catalog):
        catalog = catalog.filter(pa.array(features.lookup(content_keys(catalog)) >= 0))
    rows = told.join(catalog, "image_id", join_type="inner")
    return rows.append_column("dataset", pa.array([dataset.name] * len(rows), pa.string())).select(_SCHEMA.names)


def _images(rows: pa.Table) -> CommonImages:
    told: dict[ImageName, list[str]] = {}
    keys: dict[ImageName, bytes] = {}
    for row in rows.to_pylist():
        name = (row["dataset"], row["image_id"])
        told.setdefault(name, []).append(row["told"])
        keys[name] = row["key"]
    return CommonImages(tuple(told), tuple(keys.values()), tuple(map(tuple, told.values())))
