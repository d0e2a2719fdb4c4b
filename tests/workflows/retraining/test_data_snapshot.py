"""What a run saw is kept whole, and is equal for equal data whatever its order."""

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
NAMES = ["dataset", "image_id", "key", "split", "told_id", "told"]


def seen(rows: list[tuple[object, ...]]) -> DataSnapshot:
    return DataSnapshot(pa.table(dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))))


def test_equal_data_has_an_equal_digest_whatever_its_order_and_any_change_another() -> None:
    whole = seen(ROWS).digest
    assert seen(ROWS[::-1]).digest == whole
    for place in range(6):
        changed = list(ROWS[2])
        changed[place] = b"x" if place == 2 else "x"
        assert seen([*ROWS[:2], tuple(changed), *ROWS[3:]]).digest != whole
    assert seen(ROWS[:-1]).digest != whole


def test_it_is_read_back_and_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "seen.parquet"
    seen(ROWS).save(path)
    assert DataSnapshot.load(path).digest == seen(ROWS).digest
    path.write_bytes(b"nothing")
    with pytest.raises(CorruptFileError, match="what the run saw cannot be read"):
        DataSnapshot.load(path)


def test_runs_are_tested_on_images_whose_content_they_have_not_learned() -> None:
    held = seen(ROWS).held_out()
    assert held.names == (("scenes", "3"),)
    assert held.references == (("a café",),)
    assert seen(ROWS[:3]).held_out().references == (("a blue cross",),)
    with pytest.raises(CaptError, match="neither test nor val"):
        seen(ROWS[:2]).held_out()
    assert seen(ROWS).learns_from(held) == [False]
