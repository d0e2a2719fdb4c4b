"""A run's database: SQLite on disk, so that memory does not grow with the records."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.tables import FILE_NAMES, Table

_CACHE_KIB = 32_768
_BATCH = 10_000
_NAMED = """FROM record WHERE file_name NOT IN ('', image_id)
    AND substr(file_name, -1 - length(image_id)) != '/' || image_id"""


def iterate_rows(batches: Iterable[pa.RecordBatch], *columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of Arrow batches, of these columns, as Python's own values."""
    for batch in batches:
        yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


class Database:
    """An SQLite database of one run.

    Args:
        path: Path. The file, made anew.
        schema: str. Its tables; one is `record` with `image_id`, `file_name`, `rank` and `captions`. Limits choose
            from it.
    """

    def __init__(self, path: Path, schema: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
        self._db.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KIB};")
        self._db.executescript(schema)
        self._empty = self._size()

    @property
    def bytes(self) -> int:
        """Bytes on the disk that its rows take."""
        return self._size() - self._empty

    def _size(self) -> int:
        return self._one("PRAGMA page_count") * self._one("PRAGMA page_size")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def limit(self, images: int | None, captions: int | None) -> None:
        """Keep the images of smallest rank: so many, or as many as have so many captions together."""
        if images is not None:
            self._db.execute(
                """DELETE FROM record WHERE image_id NOT IN
                (SELECT image_id FROM record ORDER BY rank, image_id LIMIT ?)""",
                (images,),
            )
        if captions is not None:
            self._db.execute(
                """DELETE FROM record WHERE image_id IN (SELECT image_id FROM
                (SELECT image_id, sum(coalesce(captions, 0)) OVER (ORDER BY rank, image_id) AS total FROM record)
                WHERE total > ?)""",
                (captions,),
            )

    def count_file_names(self) -> int:
        """How many images have an id that does not say which file they are."""
        return self._one(f"SELECT count(*) {_NAMED}")

    def write_file_names(self, path: Path) -> int:
        """Write the file names that annotations give these images, as Parquet, by image id; how many there are."""
        return self._write(path, FILE_NAMES, f"SELECT image_id, file_name {_NAMED} ORDER BY image_id")

    def _write(self, path: Path, table: Table, query: str) -> int:
        schema, total = table.arrow_schema(), 0
        rows = self._db.execute(query)
        with pq.ParquetWriter(path, schema) as writer:
            while some := list(islice(rows, _BATCH)):
                columns = [
                    pa.array(column, field.type) for column, field in zip(zip(*some, strict=True), schema, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                total += len(some)
        return total

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Enter many rows as one; an inner one is part of the outer."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        yield
        self._db.execute("COMMIT")

    def _insert(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with self.transaction():
            self._db.executemany(statement, rows)

    def _one(self, query: str) -> int:
        (value,) = self._db.execute(query).fetchone()
        return int(value)
