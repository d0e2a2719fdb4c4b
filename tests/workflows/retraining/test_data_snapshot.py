"""A data snapshot has one digest per content, independent of the order of its rows."""

from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import CaptError, CorruptFileError
from workflows.retraining.data_snapshot import DataSnapshot

ROWS = [
    ("scenes", "1", b"one", "train", "11", "a red star"),
    ("scenes", "1", b"one", "train", "12", "there is a red star"),
    ("scenes", "2", b"two", "val", "21", "a blue cross"),
    ("scenes", "3", b"three", "test", "31", "a café"),
    ("scenes", "4", b"one", "test", "41", "a red star again"),
]
NAMES = ["dataset", "image_id", "key", "split", "text_id", "text"]


def snapshot(rows: list[tuple[object, ...]]) -> DataSnapshot:
    return DataSnapshot(pa.table(dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))))


def test_the_digest_depends_on_every_value_and_not_on_the_order() -> None:
    digest = snapshot(ROWS).digest
    assert snapshot(ROWS[::-1]).digest == digest
    for column in range(6):
        changed = list(ROWS[2])
        changed[column] = b"x" if column == 2 else "x"
        assert snapshot([*ROWS[:2], tuple(changed), *ROWS[3:]]).digest != digest
    assert snapshot(ROWS[:-1]).digest != digest


def test_a_saved_snapshot_is_loaded_and_a_corrupt_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.parquet"
    snapshot(ROWS).save(path)
    assert DataSnapshot.load(path).digest == snapshot(ROWS).digest
    path.write_bytes(b"nothing")
    with pytest.raises(CorruptFileError, match=r"snapshot\.parquet"):
        DataSnapshot.load(path)


def test_held_out_images_are_not_in_the_train_split() -> None:
    images = snapshot(ROWS).held_out()
    assert images.names == (("scenes", "3"),)
    assert images.references == (("a café",),)
    assert snapshot(ROWS[:3]).held_out().names == (("scenes", "2"),)
    with pytest.raises(CaptError):
        snapshot(ROWS[:2]).held_out()
    assert snapshot(ROWS).trains_on(images) == [False]
