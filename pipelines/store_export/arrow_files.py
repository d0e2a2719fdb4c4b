"""Writes Arrow IPC files, whose column of features has the canonical extension type of tensors of a fixed shape.

Format: https://arrow.apache.org/docs/format/CanonicalExtensions.html#fixed-shape-tensor
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.store_export.rows import Block, Layout


def write_arrow(paths: Mapping[str, Path], layout: Layout, rows: int, blocks: Iterator[Block]) -> None:
    """Writes the rows, one block per record batch."""
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(layout.dtype), layout.shape)
    schema = layout.schema.insert(2, pa.field("features", kind))
    size = math.prod(layout.shape)
    with pa.OSFile(str(paths[".arrow"]), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for block in blocks:
            values = pa.array(np.ascontiguousarray(block.features).reshape(-1))
            tensors = pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(values, size))
            writer.write_table(block.rows.add_column(2, schema.field("features"), tensors))
