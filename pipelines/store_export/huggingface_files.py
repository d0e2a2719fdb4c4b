"""Writes Parquet files that `datasets.load_dataset(DIR)` reads as arrays of the right shape.

The features of a schema are JSON in the file's metadata under `huggingface`. An array of several dimensions is nested
lists with the name of the library's extension type in the metadata of the column.

Format: https://huggingface.co/docs/datasets/about_dataset_features
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.store_export.rows import Block, Layout


def write_parquet(paths: Mapping[str, Path], layout: Layout, rows: int, blocks: Iterator[Block]) -> None:
    """Writes the rows, one block per row group."""
    schema = _build_schema(layout)
    with pq.ParquetWriter(paths[".parquet"], schema, use_dictionary=False, write_statistics=False) as writer:
        for block in blocks:
            column = _nest(block.features)
            writer.write_table(block.rows.add_column(2, schema.field("features"), column).cast(schema))


def _build_schema(layout: Layout) -> pa.Schema:
    """Returns the Arrow schema, with the features after the image's ID and SHA-256."""
    name, shape = layout.dtype.name, list(layout.shape)
    described = {field.name: _describe(field.type) for field in layout.schema}
    values = pa.from_numpy_dtype(layout.dtype)
    if len(shape) == 1:
        described["features"] = {"feature": _describe(values), "length": shape[0], "_type": "List"}
        field = pa.field("features", pa.list_(values, shape[0]))
    else:
        kind = f"Array{len(shape)}D"
        described["features"] = {"shape": shape, "dtype": name, "_type": kind}
        for _ in shape:
            values = pa.list_(values)
        extension = {
            "ARROW:extension:name": f"datasets.features.features.{kind}ExtensionType",
            "ARROW:extension:metadata": json.dumps([shape, name]),
        }
        field = pa.field("features", values, metadata=extension)
    schema = layout.schema.insert(2, field)
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": described}}, sort_keys=True)})


def _describe(kind: Any) -> dict[str, Any]:
    """Returns the feature of the library for an Arrow type."""
    if pa.types.is_list(kind):
        return {"feature": _describe(kind.value_type), "_type": "List"}
    names = {pa.float16(): "float16", pa.float32(): "float32", pa.string(): "string"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def _nest(array: NDArray[Any]) -> Any:
    """Returns an array [N, *shape] as N nested lists, or N lists of fixed size if they have one dimension."""
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    _, *shape = array.shape
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(values, shape[0])
    for axis in range(array.ndim - 1, 0, -1):
        lists = math.prod(array.shape[:axis])
        offsets = np.arange(lists + 1, dtype=np.int32) * np.int32(array.shape[axis])
        values = pa.ListArray.from_arrays(pa.array(offsets), values)
    return values
