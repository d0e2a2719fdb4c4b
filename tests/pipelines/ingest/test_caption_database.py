"""The ledger of captions: what comes twice, what was mended, and what cannot be read, with and without limits."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.datasets import FailedRecord
from pipelines.ingest.caption_database import CaptionDatabase, CaptionedImage


@pytest.fixture
def job_database(tmp_path: Path) -> Iterator[CaptionDatabase]:
    with closing(CaptionDatabase(tmp_path / "ledger.sqlite")) as one:
        one.add_images(CaptionedImage(f"{number}.jpg", f"{number}.jpg", "train", number * 10) for number in range(4))
        one.add_captions((bytes([number]), f"{number}.jpg", "0", "A dog", "") for number in range(4))
        one.add_malformed(FailedRecord("a.csv:7", "no image", "'x'"), 15)
        one.add_malformed(FailedRecord("a.csv:9", "no image", "'y'"), 35)
        one.count_captions()
        yield one


def test_one_id_with_the_same_text_is_a_duplicate_and_with_another_a_failure(job_database: CaptionDatabase) -> None:
    job_database.add_captions([(b"\0", "0.jpg", "0", "A dog", ""), (b"\1", "1.jpg", "0", "A cat", "")])
    assert job_database.counts() == {"ok": 4, "cached": 0, "duplicate": 1, "failed": 3}
    assert job_database.reasons() == {"no image": 2, "duplicate id": 1}


def test_what_was_mended_is_counted_among_the_images_chosen(job_database: CaptionDatabase) -> None:
    rows = [
        (b"\5", "0.jpg", "1", "A cat", "tab"),
        (b"\6", "3.jpg", "1", "A cat", "tab"),
        (b"\7", "0.jpg", "2", "x", "end"),
    ]
    job_database.add_captions(rows)
    assert job_database.repaired() == {"tab": 2, "end": 1}
    job_database.limit(1, None)
    assert job_database.repaired() == {"end": 1, "tab": 1}


@pytest.mark.parametrize(("images", "malformed"), [(None, 2), (4, 2), (3, 1), (2, 0)])
def test_a_limit_that_leaves_images_out_leaves_out_what_ranks_after_the_last_it_takes(
    job_database: CaptionDatabase, images: int | None, malformed: int
) -> None:
    job_database.limit(images, None)
    assert (job_database.count(), job_database.counts().get("failed", 0)) == (images or 4, malformed)


def test_the_report_tells_of_what_cannot_be_read_by_its_place(job_database: CaptionDatabase, tmp_path: Path) -> None:
    job_database.write_report(tmp_path / "report.parquet")
    rows = pq.read_table(tmp_path / "report.parquet").to_pylist()
    assert [row["record"] for row in rows] == ["0.jpg#0", "1.jpg#0", "2.jpg#0", "3.jpg#0", "a.csv:7", "a.csv:9"]
    assert rows[4] == {
        "record": "a.csv:7",
        "status": "failed",
        "stage": "parse",
        "reason": "no image",
        "detail": "a.csv:7: 'x'",
    }
