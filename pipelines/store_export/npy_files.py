"""Writes features as a .npy file, which `numpy.load(path, mmap_mode="r")` maps, and a Parquet index of its rows.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.store_export.rows import Block, Layout


def write_npy(paths: Mapping[str, Path], layout: Layout, rows: int, blocks: Iterator[Block]) -> None:
    """Writes the array [rows, *shape], and the other columns with the number of their row."""
    schema = layout.schema.insert(0, pa.field("row", pa.int64()))
    header = {"descr": layout.dtype.str, "fortran_order": False, "shape": (rows, *layout.shape)}
    first = 0
    with paths[".npy"].open("wb") as file, pq.ParquetWriter(paths[".parquet"], schema) as index:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block.features).data)
            numbers = pa.array(range(first, first + len(block.rows)), pa.int64())
            index.write_table(block.rows.add_column(0, schema.field("row"), numbers))
            first += len(block.rows)
