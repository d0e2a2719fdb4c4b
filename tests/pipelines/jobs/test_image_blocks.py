"""Images of a unit, which lists them by content hash, are read in the order of Parquet files, and yielded as listed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.inputs import parquet_rows
from features.inputs.parquet_rows import ParquetRows, name_member
from pipelines.jobs import image_blocks
from schemas.errors import RecordError

GROUPS, ROWS = 6, 40


def test_images_beyond_the_size_of_a_block_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, values = tmp_path / "a.parquet", [bytes([n]) * 100 for n in range(8)]
    pq.write_table(pa.table({"image": values}), path)
    rows = [
        {"key": hashlib.sha256(data).digest(), "location": str(path), "member": name_member(0, n, "image")}
        for n, data in enumerate(values)
    ]
    monkeypatch.setattr(image_blocks, "_BLOCK_BYTES", 250)
    reads = []
    read = image_blocks._read_unchanged
    monkeypatch.setattr(image_blocks, "_read_unchanged", lambda *given: reads.append(given) or read(*given))
    images = list(image_blocks.open_images(rows, 1 << 20))
    assert len(reads) == 3
    assert [one.read() for one in images] == values
    assert len(reads) == 8


def test_each_row_group_is_decoded_once_per_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [bytes([n]) * (n + 1) for n in range(GROUPS * ROWS)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": values}), path, row_group_size=ROWS)
    (tmp_path / "plain.jpg").write_bytes(b"plain")
    rows = [
        {"key": hashlib.sha256(data).digest(), "location": str(path), "member": name_member(*divmod(n, ROWS), "image")}
        for n, data in enumerate(values)
    ]
    rows.append({"key": hashlib.sha256(b"plain").digest(), "location": str(tmp_path / "plain.jpg"), "member": ""})
    rows.append({"key": bytes(32), "location": str(path), "member": name_member(0, 0, "image")})
    rows.sort(key=lambda row: row["key"])
    decoded, decode = [], ParquetRows._decode

    def count(self: ParquetRows, group: int, column: str) -> Iterator[Any]:
        for one in decode(self, group, column):
            decoded.append(len(one))
            yield one

    monkeypatch.setattr(ParquetRows, "_decode", count)
    monkeypatch.setattr(parquet_rows, "_MAX_KEPT_GROUPS", 1)
    monkeypatch.setattr(image_blocks, "_FIRST_IMAGES", len(rows) // 2)
    changed, *images = list(image_blocks.open_images(rows, 1 << 20))
    assert changed.key == bytes(32)
    with pytest.raises(RecordError, match="changed"):
        changed.read()
    assert [one.key for one in images] == [row["key"] for row in rows[1:]]
    assert all(hashlib.sha256(one.read()).digest() == one.key for one in images)
    assert len(values) < sum(decoded) <= 2 * len(values)
