"""Records a run's training data, for comparison with later data.

dataset, image_id, key, split, text_id, text      one row per caption or label
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.io.atomic_files import atomic_write
from features.store import Store
from features.store.caption_table import check_file_names
from schemas.errors import CaptError, CorruptFileError
from schemas.records import stack_keys
from schemas.table_config import canonical_json
from trainer.data.held_out_images import ImageName
from trainer.evaluation.paired_evaluation import CommonImages

_NAMES = ("dataset", "image_id", "key", "split", "text_id", "text")
_SCHEMA = pa.schema([(name, pa.binary() if name == "key" else pa.string()) for name in _NAMES])
_SORT_KEYS = [(name, "ascending") for name in ("dataset", "image_id", "text_id")]
_DIGEST_BATCH = 1 << 14


class DataSnapshot:
    """The images, splits and texts that a run is trained and evaluated on: one row per caption or label."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows.select(_NAMES).cast(_SCHEMA).sort_by(_SORT_KEYS).combine_chunks()

    @classmethod
    def read(
        cls, store: Store, datasets: Sequence[str], caption_tables: Sequence[str], feature_table: str
    ) -> "DataSnapshot":
        """Reads the captions or labels of all images that have features.

        `caption_tables` and `feature_table` are fingerprints. There is one caption table per dataset, none for labels.
        """
        features = store.feature_table(feature_table)
        parts = []
        fingerprints: Sequence[str | None] = caption_tables or [None] * len(datasets)
        for name, fingerprint in zip(datasets, fingerprints, strict=True):
            dataset = store.dataset(name)
            catalog = dataset.catalog()
            if fingerprint:
                caption_table = store.caption_table(fingerprint)
                captions = caption_table.captions().select(["image_id", "caption_id", "caption"])
                check_file_names(caption_table, captions, dataset, catalog)
                texts = captions.rename_columns(["image_id", "text_id", "text"])
            else:
                labels = dataset.labels().rename_columns(["image_id", "text"])
                texts = labels.append_column("text_id", labels["image_id"])
            catalog = catalog.select(["image_id", "key", "split"])
            if len(catalog):
                catalog = catalog.filter(pa.array(features.lookup(stack_keys(catalog)) >= 0))
            rows = texts.join(catalog, "image_id", join_type="inner")
            rows = rows.append_column("dataset", pa.array([name] * len(rows), pa.string()))
            parts.append(rows.select(_NAMES))
        return cls(pa.concat_tables(parts))

    @classmethod
    def load(cls, path: Path) -> "DataSnapshot":
        """Reads the file that `save` wrote. Raises CorruptFileError if it cannot be read."""
        try:
            return cls(pq.read_table(path, schema=_SCHEMA))
        except (OSError, pa.ArrowException) as error:
            raise CorruptFileError(f"cannot read the training data snapshot: {error}", location=str(path)) from None

    def save(self, path: Path) -> None:
        """Writes a Parquet file."""
        with atomic_write(path) as temporary:
            pq.write_table(self.rows, temporary)

    @property
    def digest(self) -> str:
        """SHA-256 of all rows. Their original order has no effect."""
        digest = hashlib.sha256()
        for batch in self.rows.to_batches(max_chunksize=_DIGEST_BATCH):
            columns = [column.to_pylist() for column in batch.columns]
            columns[2] = [key.hex() for key in columns[2]]
            digest.update(canonical_json(list(zip(*columns, strict=True))))
        return digest.hexdigest()

    def images(self) -> dict[ImageName, bytes]:
        """Returns the content hash of each image."""
        names = zip(self.rows["dataset"].to_pylist(), self.rows["image_id"].to_pylist(), strict=True)
        return dict(zip(names, self.rows["key"].to_pylist(), strict=True))

    def texts(self) -> dict[tuple[str, str, str], str]:
        """Returns the captions or labels by dataset, image id and text id."""
        ids = (self.rows[name].to_pylist() for name in ("dataset", "image_id", "text_id"))
        return dict(zip(zip(*ids, strict=True), self.rows["text"].to_pylist(), strict=True))

    def held_out(self) -> CommonImages:
        """Returns the images of the test split whose content is not in the train split; if there are none, of val.

        Raises CaptError if there are none either.
        """
        trained = pc.unique(self._select("train")["key"])
        for split in ("test", "val"):
            rows = self._select(split)
            rows = rows.filter(pc.invert(pc.is_in(rows["key"], value_set=trained)))
            if len(rows):
                return _group_images(rows)
        raise CaptError("the splits test and val have no images to evaluate on", hint="Add images to one of them.")

    def trains_on(self, images: CommonImages) -> list[bool]:
        """Returns for each image whether its content is in the train split."""
        trained = set(self._select("train")["key"].to_pylist())
        return [key in trained for key in images.keys]

    def _select(self, split: str) -> pa.Table:
        return self.rows.filter(pc.equal(self.rows["split"], split))


def _group_images(rows: pa.Table) -> CommonImages:
    texts: dict[ImageName, list[str]] = {}
    keys: dict[ImageName, bytes] = {}
    for row in rows.to_pylist():
        name = (row["dataset"], row["image_id"])
        texts.setdefault(name, []).append(row["text"])
        keys[name] = row["key"]
    return CommonImages(tuple(texts), tuple(keys.values()), tuple(map(tuple, texts.values())))
