"""The caption database counts duplicates, repairs and failures, applies limits, and selects captions by key."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pipelines.ingest.caption_database
from features.text.caption_keys import CaptionsDigest
from features.text.lines import FailedRecord
from pipelines.datasets.limits import Limits
from pipelines.ingest.caption_database import SELECTED_CAPTIONS, CaptionDatabase
from pipelines.ingest.job_database import InputRecord

COUNT = 50


@pytest.fixture
def database(tmp_path: Path) -> Iterator[CaptionDatabase]:
    with closing(CaptionDatabase(tmp_path / "job.sqlite")) as one:
        one.insert_images(InputRecord(f"{number}.jpg", f"{number}.jpg", "train", number * 10) for number in range(4))
        one.insert_captions((bytes([number]), f"{number}.jpg", "0", "A dog", "") for number in range(4))
        one.insert_unreadable(FailedRecord("a.csv:7", "no image", "'x'"), 15)
        one.insert_unreadable(FailedRecord("a.csv:9", "no image", "'y'"), 35)
        one.reject_failed_images()
        yield one


def test_a_repeated_id_is_a_duplicate_with_the_same_text_and_a_failure_with_another(database: CaptionDatabase) -> None:
    database.insert_captions([(b"\0", "0.jpg", "0", "A dog", ""), (b"\1", "1.jpg", "0", "A cat", "")])
    assert database.count_by_status() == {"ok": 4, "duplicate": 1, "failed": 3}
    assert database.count_by_reason() == {"no image": 2, "duplicate id": 1}


def test_repairs_are_counted_among_the_selected_images(database: CaptionDatabase) -> None:
    rows = [
        (b"\5", "0.jpg", "1", "A cat", "tab"),
        (b"\6", "3.jpg", "1", "A cat", "tab"),
        (b"\7", "0.jpg", "2", "x", "end"),
    ]
    database.insert_captions(rows)
    assert database.count_repaired() == {"tab": 2, "end": 1}
    database.limit(Limits(images=1))
    assert database.count_repaired() == {"end": 1, "tab": 1}


@pytest.mark.parametrize(("images", "unreadable"), [(None, 2), (4, 2), (3, 1), (2, 0)])
def test_a_limit_removes_unreadable_records_that_rank_after_its_last_image(
    database: CaptionDatabase, images: int | None, unreadable: int
) -> None:
    database.limit(Limits(images=images))
    assert (database.count(), database.count_by_status().get("failed", 0)) == (images or 4, unreadable)


@pytest.mark.parametrize(("sampled", "unreadable"), [(9, 2), (4, 2), (3, 1), (1, 0)])
def test_a_sample_removes_unreadable_records_that_rank_after_its_last_caption(
    database: CaptionDatabase, sampled: int, unreadable: int
) -> None:
    database.insert_caption_ranks((number * 10, f"{number}.jpg", "0") for number in range(4))
    database.limit(Limits(sampled_captions=sampled))
    assert (database.count(), database.count_by_status().get("failed", 0)) == (min(sampled, 4), unreadable)


def test_the_time_of_a_sample_does_not_grow_with_the_square_of_the_captions(tmp_path: Path) -> None:
    total = 40_000
    with closing(CaptionDatabase(tmp_path / "job.sqlite")) as one:
        one.insert_images(InputRecord(f"{number}.jpg", f"{number}.jpg", "train", number) for number in range(total))
        one.insert_captions((key(number), f"{number}.jpg", "0", "A dog", "") for number in range(total))
        one.insert_caption_ranks((number * 7919 % total, f"{number}.jpg", "0") for number in range(total))
        started = time.monotonic()
        one.limit(Limits(sampled_captions=total // 2))
        assert time.monotonic() - started < 10
        assert one.count() == total // 2


def test_the_report_identifies_unreadable_records_by_location(database: CaptionDatabase, tmp_path: Path) -> None:
    database.write_report(tmp_path / "report.parquet")
    rows = pq.read_table(tmp_path / "report.parquet").to_pylist()
    assert [row["record"] for row in rows] == ["0.jpg#0", "1.jpg#0", "2.jpg#0", "3.jpg#0", "a.csv:7", "a.csv:9"]
    assert rows[4] == {
        "record": "a.csv:7",
        "status": "failed",
        "stage": "parse",
        "reason": "no image",
        "detail": "a.csv:7: 'x'",
    }


# === Selected captions ===


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CaptionDatabase]:
    monkeypatch.setattr(pipelines.ingest.caption_database, "_BATCH", 8)
    with closing(CaptionDatabase(tmp_path / "job.sqlite")) as one:
        one.insert_images(
            InputRecord(f"{number}.jpg", f"{number}.jpg", "val" if number % 5 == 0 else "train", number)
            for number in range(COUNT)
        )
        one.insert_captions((key(n), f"{n}.jpg", "0", f"dog {n} ü", "") for n in [*range(COUNT), 3, 3, COUNT - 1])
        yield one


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def test_selected_captions_are_sorted_by_key_and_unique_in_many_batches(many: CaptionDatabase, tmp_path: Path) -> None:
    selected = many.select_captions(tmp_path / "selected.arrows")
    batches = list(selected.read_batches())
    assert len(batches) > 5
    assert all(batch.schema == SELECTED_CAPTIONS for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [row["key"] for row in rows] == sorted(key(number) for number in range(COUNT))
    assert {row["caption"] for row in rows} == {f"dog {number} ü" for number in range(COUNT)}
    assert selected.rows == COUNT
    assert many.count_by_status() == {"ok": COUNT, "duplicate": 3}


def test_the_digests_are_those_of_the_single_captions(many: CaptionDatabase, tmp_path: Path) -> None:
    selected = many.select_captions(tmp_path / "selected.arrows")
    inputs, train = hashlib.sha256(), CaptionsDigest()
    for number in sorted(range(COUNT), key=key):
        split, caption = "val" if number % 5 == 0 else "train", f"dog {number} ü"
        digest = hashlib.sha256(key(number) + caption.encode()).digest()
        inputs.update(digest + split.encode())
        if split == "train":
            train.add(digest)
    assert selected.inputs == inputs.hexdigest()
    assert (selected.train.hexdigest(), len(selected.train)) == (train.hexdigest(), 40)
