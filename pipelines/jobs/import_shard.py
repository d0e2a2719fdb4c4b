"""Imports the arrays of one work unit into one shard."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.extractors.extraction import ExtractedRow, FailedImage
from features.inputs import FileReference
from features.inputs.npy_arrays import MAX_ARRAY_BYTES, parse_array, to_row
from features.store.storage_dtypes import encode
from pipelines.beam.work_plans import Advance, read_unit
from pipelines.ingest.image_database import CHANGED
from pipelines.jobs.extract_shard import ExtractedUnit, open_writer, write_rows
from pipelines.jobs.provenance import Provenance
from schemas.errors import RecordError, to_record_error
from schemas.table_config import FeatureTableConfig
from schemas.tables import KEY_BYTES

# `row` is the index in the array of all images; `sha256` is empty there, and that of the file of one image elsewhere.
IMPORT_UNIT_SCHEMA = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("location", pa.string()),
        ("member", pa.string()),
        ("row", pa.int64()),
        ("sha256", pa.string()),
    ]
)
# The bits of a row depend on its array alone.
IMPORT_PROVENANCE = Provenance(numerics="imported", toolchain={})


@dataclass(frozen=True)
class ImportShard:
    """Imports the arrays of one unit into one shard. The result is an `ExtractedUnit` in JSON.

    `shape` is that of one row's value; `commit` the directory of the shard in the table, which has `count` shards;
    `whole` whether one array has the rows of all images.
    """

    root: str
    table_config: FeatureTableConfig
    shape: tuple[int, ...]
    commit: str
    count: int
    whole: bool

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """Returns the result of a unit, whose name is the number of its shard."""
        writer = open_writer(self.root, self.commit, self.table_config, self.shape, unit, self.count)
        rows = import_rows(read_unit(unit), self.table_config, self.shape, self.whole)
        shard, failures = write_rows(writer, rows, advance)
        imported = ExtractedUnit(shard=shard, failures=failures, provenance=IMPORT_PROVENANCE)
        return imported.model_dump_json().encode()


def import_rows(
    rows: Iterable[dict[str, Any]], table_config: FeatureTableConfig, shape: tuple[int, ...], whole: bool
) -> Iterator[ExtractedRow | FailedImage]:
    """Yields one result per row of a unit, in order. An array that is not usable fails alone.

    Maps an array of all images into memory: the system reads the pages that are used, and may drop them again. The map
    ends with the call, because a later file may have the same path.
    """
    mapped: dict[str, NDArray[Any]] = {}
    for row in rows:
        reference = FileReference(row["location"], row["member"])
        label = f"{reference.label}: row {row['row']}" if whole else reference.label
        try:
            if whole:
                if reference.location not in mapped:
                    mapped[reference.location] = np.load(reference.location, mmap_mode="r", allow_pickle=False)
                array = mapped[reference.location][row["row"]]
            else:
                array = _read_unchanged(reference, row["sha256"])
            values = encode(to_row(array, shape, table_config.dtype, label), table_config.dtype)
            yield ExtractedRow(row["key"], values)
        except Exception as error:
            yield FailedImage(row["key"], to_record_error("read", error))


def _read_unchanged(reference: FileReference, sha256: str) -> NDArray[Any]:
    data = reference.read(MAX_ARRAY_BYTES)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RecordError("read", CHANGED, f"{reference.label} changed during the job", permanent=False)
    return parse_array(data, reference.label)
