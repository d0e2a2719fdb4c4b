"""One declaration per table, from which the Arrow schema and the documentation are derived.

A `Table` is a tuple of `Field`s. `schemas.records` turns rows of a table into TFRecord examples and back,
with the parsing spec derived from the same fields.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import pyarrow as pa

from schemas.choices import Compression

Kind = Literal["bytes", "text", "int", "ints", "tensor"]

KEY_BYTES = 32

SPLITS = ("train", "val", "test", "unused")

_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
}


@dataclass(frozen=True)
class Field:
    """One column.

    Args:
        name: str. The column's name in both formats.
        kind: str. `bytes` (of `size` bytes where given), `text` (UTF-8), `int` (64 bits, signed), `ints` (a list of
            them) or `tensor` (`shape` values of `dtype`, row-major, little-endian).
        doc: str. What the value means, with its unit or range.
        size: int. Exact length of a `bytes` value; 0 where it varies.
        shape: tuple of int. Shape of a `tensor` value.
        dtype: str. Storage dtype of a `tensor` value.
        compression: str. How the bytes of a `tensor` value are kept; `zstd` makes them vary in length.
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
        """The dtype of a `tensor` value as NumPy names it (bfloat16 through ml_dtypes)."""
        return _DTYPES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of one value, before compression, or 0 where they vary from row to row."""
        if self.kind == "tensor":
            return math.prod(self.shape) * self.numpy_dtype.itemsize
        return {"bytes": self.size, "int": 8}.get(self.kind, 0)

    def arrow_field(self) -> pa.Field:
        """The Arrow field; a tensor is fixed-size binary (of any size where compressed) that metadata describes."""
        if self.kind == "tensor":
            metadata = {"shape": json.dumps(list(self.shape)), "dtype": self.dtype}
            if self.compression != "none":
                return pa.field(
                    self.name, pa.binary(), nullable=False, metadata=metadata | {"compression": self.compression}
                )
            return pa.field(self.name, pa.binary(self.nbytes), nullable=False, metadata=metadata)
        arrow_type = {
            "bytes": pa.binary(self.size) if self.size else pa.binary(),
            "text": pa.string(),
            "int": pa.int64(),
            "ints": pa.list_(pa.int64()),
        }[self.kind]
        return pa.field(self.name, arrow_type, nullable=False)


@dataclass(frozen=True)
class Table:
    """A table's name, purpose and fields; the first field is the one its rows are sorted by."""

    name: str
    doc: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field:
        """The field called `name`; KeyError where the table has none."""
        return {field.name: field for field in self.fields}[name]

    def arrow_schema(self) -> pa.Schema:
        """The schema of the table's Parquet files."""
        return pa.schema([field.arrow_field() for field in self.fields])

    def doc_table(self) -> str:
        """The table as a Markdown table: column, type, meaning."""
        lines = ["| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{f.name}` | {_type_words(f)} | {f.doc} |" for f in self.fields]
        return "\n".join(lines)


def _type_words(field: Field) -> str:
    if field.kind == "tensor":
        words = f"{field.dtype}{list(field.shape)}"
        return words if field.compression == "none" else f"{words}, {field.compression}"
    if field.size:
        return f"bytes[{field.size}]"
    return field.kind


_KEY = Field("key", "bytes", "SHA-256 of the image's bytes", size=KEY_BYTES)
_IMAGE_ID = Field("image_id", "text", "the image's id within its dataset")
_SPLIT = Field("split", "text", "`train`, `val`, `test` or `unused`")


def features_table(shape: tuple[int, ...], dtype: str, compression: Compression = "none") -> Table:
    """Features of images: one row an image, whatever number of captions or datasets name it.

    Args:
        shape: tuple of int. Shape of one image's features, such as (64, 2048) or (2048,).
        dtype: str. Storage dtype: `float32`, `float16`, `bfloat16`, `int8` or `uint8`. With `int8` a `scale`
            column holds one float32 a place: value = int8 · scale.
        compression: str. How the values' bytes are kept: `none`, or `zstd`, one frame a row.
    """
    value = Field("value", "tensor", "the extractor's output", shape=shape, dtype=dtype, compression=compression)
    fields = [_KEY, value]
    if dtype == "int8":
        fields.append(Field("scale", "tensor", "one factor a place; value = int8 · scale", shape=shape[:-1]))
    return Table("features", "What an extractor made of each image.", tuple(fields))


CAPTIONS = Table(
    "captions",
    "Captions and their tokens.",
    (
        Field("key", "bytes", "SHA-256 of (dataset, image_id, caption_id)", size=KEY_BYTES),
        Field("dataset", "text", "the dataset that the caption belongs to"),
        _IMAGE_ID,
        Field("caption_id", "text", "the caption's id within its dataset"),
        _SPLIT,
        Field("caption", "text", "the caption as published"),
        Field("tokens", "ints", "word ids, from 2 (start) to 3 (end); 1 is an unknown word"),
    ),
)

CATALOG = Table(
    "catalog",
    "The join of a dataset: which image id has which content.",
    (
        _IMAGE_ID,
        Field("key", "bytes", "SHA-256 of the image's bytes, the key of its features", size=KEY_BYTES),
        _SPLIT,
        Field("location", "text", "where the image was read: a path, or an archive's path"),
        Field("member", "text", "the name inside the archive; empty for a plain file"),
        Field("bytes", "int", "size of the encoded image in bytes"),
    ),
)

ASSIGNED_SPLITS = Table(
    "splits",
    "The splits of images that the catalog does not contain: images that failed, or were absent from later runs.",
    (_IMAGE_ID, _SPLIT),
)

FILE_NAMES = Table(
    "names",
    "The files that annotations name for images. An image whose id is a file name, or its end, has no row.",
    (_IMAGE_ID, Field("file_name", "text", "the file name, as the annotations give it")),
)

LABELS = Table(
    "labels",
    "The words of a dataset of CAPTCHAs; images whose word is not told have no row.",
    (
        _IMAGE_ID,
        Field("word", "text", "what the image says, letters a–z"),
    ),
)

REPORT = Table(
    "report",
    "What became of every input record of one run.",
    (
        Field("record", "text", "image id, or image id and caption id"),
        Field("status", "text", "`ok`, `cached`, `duplicate` or `failed`"),
        Field("stage", "text", "where a failed record failed: find, read, decode, extract, store, parse"),
        Field("reason", "text", "why a failed record failed, in a word or two"),
        Field("detail", "text", "what exactly was seen"),
    ),
)

FAILURES = Table(
    "failures",
    "Images that fail whenever they are tried, remembered so that they are not tried again.",
    (
        _KEY,
        Field("stage", "text", "where it failed"),
        Field("reason", "text", "why it failed, in a word or two"),
        Field("detail", "text", "what exactly was seen"),
    ),
)
