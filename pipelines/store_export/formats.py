"""Lists the formats of exports: how each writes a file."""

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.store_export.arrow_files import write_arrow
from pipelines.store_export.huggingface_files import write_parquet
from pipelines.store_export.npy_files import write_npy
from pipelines.store_export.rows import Block, Layout
from pipelines.store_export.webdataset_files import write_tar
from schemas.choices import ExportFormat
from schemas.errors import UsageError

_FILE_BYTES = 256 << 20


@dataclass(frozen=True)
class FileFormat:
    """A format.

    Attributes:
        write: Writes rows to files, given by suffix.
        suffixes: Suffixes of the files that belong together.
        directory: Directory of the files, within that of the export.
        file_bytes: Features per file, if the user sets no number of images; None for all of a split.
        row_bytes: Bytes that a row takes besides its features, approximately.
        max_dimensions: Dimensions that the features of an image may have; None for any number.
    """

    write: Callable[[Mapping[str, Path], Layout, int, Iterator[Block]], None]
    suffixes: tuple[str, ...]
    directory: str = ""
    file_bytes: int | None = _FILE_BYTES
    row_bytes: int = 0
    max_dimensions: int | None = None

    def check(self, layout: Layout) -> None:
        """Raises UsageError if the format cannot hold the features."""
        dimensions, most = len(layout.shape), self.max_dimensions
        if most is not None and not 1 <= dimensions <= most:
            message = f"the features have {dimensions} dimensions, and the format supports 1 to {most}"
            raise UsageError(message, location="--format", hint="Choose another format, such as npy.")

    def choose_shard_size(self, layout: Layout, rows: int) -> int:
        """Returns the number of images per file, for a split with so many rows."""
        return rows if self.file_bytes is None else max(1, self.file_bytes // max(1, layout.row_bytes + self.row_bytes))


FORMATS: dict[ExportFormat, FileFormat] = {
    "webdataset": FileFormat(
        write_tar, (".tar",), row_bytes=3 * 2 * tarfile.BLOCKSIZE
    ),  # three files with header and padding
    # The library finds splits by the names of files in this directory.
    "huggingface": FileFormat(write_parquet, (".parquet",), "data", max_dimensions=5),
    "npy": FileFormat(write_npy, (".npy", ".parquet"), file_bytes=None),
    "arrow": FileFormat(write_arrow, (".arrow",)),
}
