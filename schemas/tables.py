"""Declares the columns of every table; the Arrow schemas and the reference pages are derived from these declarations.

`schemas.records` converts rows to TFRecord examples and Arrow, and derives the parsing spec from the same fields.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
import pyarrow as pa

from schemas.choices import Compression, Split

Kind = Literal["bytes", "text", "int", "ints", "tensor"]

KEY_BYTES = 32

SPLITS: tuple[str, ...] = get_args(Split)


@dataclass(frozen=True)
class Field:
    """One column.

    Args:
        kind: `bytes` (of `size` bytes if given), `text` (UTF-8), `int` (64 bits, signed), `ints` (a list of
            such integers) or `tensor` (`shape` values of `dtype`, row-major, little-endian).
        doc: Meaning of the value, with its unit or range.
        size: Exact length of a `bytes` value; 0 if it varies.
        shape: Shape of a `tensor` value.
        dtype: Storage dtype of a `tensor` value.
        compression: Compression of a `tensor` value's bytes; compressed values vary in length.
    """

    name: str
    kind: Kind
    doc: str
    size: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    compression: Compression = "none"

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype)

    @property
    def nbytes(self) -> int:
        """Size of one uncompressed value in bytes; 0 if it varies by row."""
        if self.kind == "tensor":
            return math.prod(self.shape) * self.numpy_dtype.itemsize
        return {"bytes": self.size, "int": 8}.get(self.kind, 0)

    def arrow_field(self) -> pa.Field:
        """Returns the Arrow field; a tensor is fixed-size binary, or binary if compressed, with shape and dtype."""
        if self.kind == "tensor":
            metadata = {"shape": json.dumps(list(self.shape)), "dtype": self.dtype}
            size = self.nbytes
            if self.compression != "none":
                metadata, size = metadata | {"compression": self.compression}, -1
            return pa.field(self.name, pa.binary(size), nullable=False, metadata=metadata)
        arrow_type = {
            "bytes": pa.binary(self.size) if self.size else pa.binary(),
            "text": pa.string(),
            "int": pa.int64(),
            "ints": pa.list_(pa.int64()),
        }[self.kind]
        return pa.field(self.name, arrow_type, nullable=False)


@dataclass(frozen=True)
class Table:
    """A table's name, purpose and columns. Rows are sorted by the first column."""

    name: str
    doc: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field:
        """Returns the column with this name; KeyError if it does not exist."""
        return {field.name: field for field in self.fields}[name]

    def arrow_schema(self) -> pa.Schema:
        """Returns the schema of the table's Parquet files."""
        return pa.schema([field.arrow_field() for field in self.fields])

    def doc_table(self) -> str:
        """Returns the columns as a Markdown table: column, type, meaning."""
        lines = ["| column | type | meaning |", "|---|---|---|"]
        for f in self.fields:
            compressed = "" if f.compression == "none" else f", {f.compression}"
            kind = f"{f.dtype}{list(f.shape)}{compressed}" if f.kind == "tensor" else f.kind
            lines.append(f"| `{f.name}` | {f'bytes[{f.size}]' if f.size else kind} | {f.doc} |")
        return "\n".join(lines)


_KEY = Field("key", "bytes", "SHA-256 of the image's bytes", size=KEY_BYTES)
_IMAGE_ID = Field("image_id", "text", "the image ID within its dataset")
_SPLIT = Field("split", "text", "`train`, `val`, `test` or `unused`")
_REASON = Field("reason", "text", "reason of the failure, in a few words")
_DETAIL = Field("detail", "text", "details of the failure")


def features_table(shape: tuple[int, ...], dtype: str, compression: Compression = "none") -> Table:
    """Declares a feature table: one row per image, shared by all captions and datasets.

    `shape` is that of one image's features, such as (64, 2048) or (2048,). With the storage dtype `int8`, a `scale`
    column contains one float32 per location: value = int8 · scale.
    """
    value = Field("value", "tensor", "the extractor's output", shape=shape, dtype=dtype, compression=compression)
    fields = [_KEY, value]
    if dtype == "int8":
        fields.append(Field("scale", "tensor", "one factor per location; value = int8 · scale", shape=shape[:-1]))
    return Table("features", "The features of each image.", tuple(fields))


CAPTIONS = Table(
    "captions",
    "Captions and their token IDs.",
    (
        Field("key", "bytes", "SHA-256 of (dataset, image_id, caption_id)", size=KEY_BYTES),
        Field("dataset", "text", "the dataset that the caption belongs to"),
        _IMAGE_ID,
        Field("caption_id", "text", "the caption ID within its dataset"),
        _SPLIT,
        Field("caption", "text", "the caption as published"),
        Field("tokens", "ints", "token IDs, from 2 (start) to 3 (end); 1 is an out-of-vocabulary word"),
    ),
)

CATALOG = Table(
    "catalog",
    "One row per image of a dataset, with the content hash of the image.",
    (
        _IMAGE_ID,
        Field("key", "bytes", "SHA-256 of the image's bytes, the key of its features", size=KEY_BYTES),
        _SPLIT,
        Field("location", "text", "the path or URI of the image, or of the archive that contains it"),
        Field("member", "text", "the name in the archive; empty for a plain file"),
        Field("bytes", "int", "size of the encoded image in bytes"),
    ),
)

ASSIGNED_SPLITS = Table(
    "splits",
    "The splits of images that the catalog does not contain, because they failed or were absent from later runs.",
    (_IMAGE_ID, _SPLIT),
)

FILE_NAMES = Table(
    "names",
    "The image file names in annotations. An image whose ID is its file name, or the end of it, has no row.",
    (_IMAGE_ID, Field("file_name", "text", "the file name, as in the annotations")),
)

LABELS = Table(
    "labels",
    "The labels of a dataset of images with text; images without a label have no row.",
    (_IMAGE_ID, Field("word", "text", "the label, in NFC")),
)

REPORT = Table(
    "report",
    "The status of every input record of one run.",
    (
        Field("record", "text", "image ID, or image ID and caption ID"),
        Field("status", "text", "`ok`, `cached`, `duplicate` or `failed`"),
        Field(
            "stage", "text", "stage at which the record failed: find, download, read, decode, extract, store or parse"
        ),
        _REASON,
        _DETAIL,
    ),
)

FAILURES = Table(
    "failures",
    "Images that failed permanently, recorded so that they are not processed again.",
    (_KEY, Field("stage", "text", "stage at which the image failed"), _REASON, _DETAIL),
)
