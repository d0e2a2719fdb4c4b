"""Conceptual Captions have IDs that do not depend on the row order, and splits from the file name."""

from hashlib import sha256
from pathlib import Path

import pytest

from features.inputs.image_urls import build_download_name
from features.text.lines import FailedRecord
from pipelines.datasets import open_reader
from pipelines.datasets.base import CaptionEntry
from schemas.errors import UsageError
from tests.pipelines.datasets.entries import bare_entries

URL = "http://example.com/a.jpg"


def captions(path: Path) -> list[CaptionEntry | FailedRecord]:
    return bare_entries(open_reader("conceptual", [str(path)]).read_captions())


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def test_ids_are_digests_of_address_and_text(tmp_path: Path) -> None:
    (entry,) = captions(write(tmp_path / "rows.tsv", f"a dog runs\t{URL}\n"))
    digest = sha256(URL.encode()).hexdigest()
    assert entry == CaptionEntry(digest, sha256(b"a dog runs").hexdigest(), "a dog runs")
    (image,) = open_reader("conceptual", [str(tmp_path / "rows.tsv")]).read_images()
    assert (image.image_id, image.file_name, image.url) == (digest, f"{digest[:2]}/{digest}", URL)
    assert image.file_name == build_download_name(URL)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train_GCC-training.tsv", "train"),
        ("Validation_GCC-1.1.0-Validation.tsv", "val"),
        ("train.tsv", "train"),
        ("cc3m_val.tsv", "val"),
        ("Image_Labels_Subset_Train_GCC-Labels-training.tsv", "train"),
        ("retrieval.tsv", None),
        ("trainval.tsv", None),
        ("rows.tsv", None),
    ],
)
def test_the_split_is_by_the_files_name(tmp_path: Path, name: str, split: str | None) -> None:
    path = write(tmp_path / name, f"a dog\t{URL}\n")
    (image,) = open_reader("conceptual", [str(path)]).read_images()
    assert image.split == split


def test_bad_lines_are_reported_with_their_locations_and_affect_no_other(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.tsv",
        f"\ufeffa\t{URL}\r\nno tab\n\nno address\t\nb\twww.example.com/b.jpg\n\udcff\t{URL}\nc\t{URL}\tlabel\t0.5\n",
    )
    good = [entry.caption for entry in captions(path) if isinstance(entry, CaptionEntry)]
    bad = {entry.location: entry.reason for entry in captions(path) if isinstance(entry, FailedRecord)}
    assert good == ["a", "c"]
    assert bad == {
        f"{path}:2": "no separator",
        f"{path}:4": "no URL",
        f"{path}:5": "no URL",
        f"{path}:6": "not UTF-8",
    }
    assert len(bare_entries(open_reader("conceptual", [str(path)]).read_images())) == 2


def test_annotations_are_needed() -> None:
    with pytest.raises(UsageError, match=r"Train_GCC-training\.tsv"):
        open_reader("conceptual", [])
