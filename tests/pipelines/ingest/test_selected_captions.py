"""The captions chosen: by key, each once, with the digests that tables are told apart by."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import pipelines.ingest.caption_database
from features.text.caption_keys import CaptionsDigest
from pipelines.ingest.caption_database import SELECTED_CAPTIONS, CaptionDatabase, CaptionedImage
from pipelines.ingest.selected_captions import select_captions

COUNT = 50


@pytest.fixture
def job_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CaptionDatabase]:
    monkeypatch.setattr(pipelines.ingest.caption_database, "_BATCH", 8)
    with closing(CaptionDatabase(tmp_path / "ledger.sqlite")) as one:
        one.add_images(
            CaptionedImage(f"{number}.jpg", f"{number}.jpg", "val" if number % 5 == 0 else "train", number)
            for number in range(COUNT)
        )
        one.add_captions((key(n), f"{n}.jpg", "0", f"dog {n} ü", "") for n in [*range(COUNT), 3, 3, COUNT - 1])
        yield one


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def test_captions_come_by_key_and_each_once_however_many_batches_they_take(
    job_database: CaptionDatabase, tmp_path: Path
) -> None:
    chosen = select_captions(job_database, tmp_path / "chosen.arrows")
    batches = list(chosen.batches())
    assert len(batches) > 5
    assert all(batch.schema == SELECTED_CAPTIONS for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [row["key"] for row in rows] == sorted(key(number) for number in range(COUNT))
    assert {row["caption"] for row in rows} == {f"dog {number} ü" for number in range(COUNT)}
    assert chosen.rows == COUNT
    assert job_database.counts() == {"ok": COUNT, "cached": 0, "duplicate": 3}


def test_the_digests_are_those_of_the_captions_one_by_one(job_database: CaptionDatabase, tmp_path: Path) -> None:
    chosen = select_captions(job_database, tmp_path / "chosen.arrows")
    inputs, train = hashlib.sha256(), CaptionsDigest()
    for number in sorted(range(COUNT), key=key):
        split, caption = "val" if number % 5 == 0 else "train", f"dog {number} ü"
        digest = hashlib.sha256(key(number) + caption.encode()).digest()
        inputs.update(digest + split.encode())
        if split == "train":
            train.add(digest)
    assert chosen.inputs == inputs.hexdigest()
    assert (chosen.train.hexdigest(), len(chosen.train)) == (train.hexdigest(), 40)
