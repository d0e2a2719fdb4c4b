"""Images are joined with metadata files by paths, or have the name of their directory as caption."""

import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capt
from features.text.lines import FailedRecord
from pipelines.datasets import open_reader
from schemas.errors import CaptError, UsageError
from tests.conftest import noise_image
from tests.pipelines.datasets.test_huggingface import corrupt, parquet


def write(root: Path, files: dict[str, str]) -> str:
    """Writes text files, and images under names of JPEG."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jpg"):
            noise_image(1).save(path)
        else:
            path.write_text(text)
    return str(root)


def images(path: str) -> dict[str, str | None]:
    """The split of each image."""
    return {one.image_id: one.split for one in open_reader("imagefolder", [path]).read_images()}


def captions(path: str, **settings: Any) -> list[tuple[str, str]]:
    read = open_reader("imagefolder", [path], **settings).read_captions()
    return sorted(
        (one.location.rpartition("/")[2], one.reason) if isinstance(one, FailedRecord) else (one.image_id, one.caption)
        for one in read
    )


def test_metadata_names_images_relative_to_its_directory(tmp_path: Path) -> None:
    root = write(
        tmp_path / "x",
        {
            "train/metadata.csv": "file_name,text\na.jpg,A dog\ndeep/../b.jpg,A cat\n",
            "validation/metadata.jsonl": '{"file_name": "c/a.jpg", "text": "A cow"}\n{"file_name": "d.jpg"}\n{',
        },
    )
    rows = {"file_name": ["e.jpg", None], "captions": [["one", "two"], ["three"]], "split": ["test", None]}
    (tmp_path / "x" / "more").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "x" / "more" / "metadata.parquet")
    found = {"train/a.jpg": "train", "train/b.jpg": "train", "validation/c/a.jpg": "val", "validation/d.jpg": "val"}
    assert images(root) == {**found, "more/e.jpg": "test"}
    assert captions(root) == [
        ("metadata.jsonl:2", "no caption"),
        ("metadata.jsonl:3", "not JSON"),
        ("metadata.parquet: row 2", "no file_name"),
        ("more/e.jpg", "one"),
        ("more/e.jpg", "two"),
        ("train/a.jpg", "A dog"),
        ("train/b.jpg", "A cat"),
        ("validation/c/a.jpg", "A cow"),
    ]


def test_without_metadata_a_directory_is_a_class(tmp_path: Path) -> None:
    root = write(tmp_path / "x", dict.fromkeys(["train/test tube/1.jpg", "dog/2.jpg", "test/3.jpg", "4.jpg"], ""))
    assert images(root) == {"train/test tube/1.jpg": "train", "dog/2.jpg": None, "test/3.jpg": "test", "4.jpg": None}
    assert captions(root) == [
        ("3.jpg", "no caption"),
        ("4.jpg", "no caption"),
        ("dog/2.jpg", "dog"),
        ("train/test tube/1.jpg", "test tube"),
    ]


def test_a_directory_named_as_a_split_is_no_class_below_another_directory(tmp_path: Path) -> None:
    names = [
        "pets/train/1.jpg",
        "pets/evaluation/2.jpg",
        "pets/train/dog/3.jpg",
        "pets/trains/4.jpg",
        "train/test/5.jpg",
    ]
    root = write(tmp_path / "x", dict.fromkeys(names, ""))
    assert images(root) == dict(zip(names, ["train", "test", "train", None, "train"], strict=True))
    classes = [("pets/train/dog/3.jpg", "dog"), ("pets/trains/4.jpg", "trains"), ("train/test/5.jpg", "test")]
    assert captions(root) == [("1.jpg", "no caption"), ("2.jpg", "no caption"), *classes]


def test_metadata_names_files_of_its_own_root_and_directory_only(tmp_path: Path) -> None:
    for number, name in enumerate(("p", "q")):
        write(tmp_path / name, {"metadata.csv": f"file_name,text\na.jpg,dog {number}\nb.jpg,cat {number}\n"})
        noise_image(number).save(tmp_path / name / "a.jpg")
    write(tmp_path / "p", {"deep/b.jpg": ""})
    roots = [str(tmp_path / name) for name in ("p", "q")]
    options = {"store": str(tmp_path / "S"), "dataset_type": "imagefolder", "max_failures": "100%"}
    result = capt.prepare_features(**options, images=roots, extractor="pixels", height=8, width=8)
    assert (result["input"], result["ok"], result["reasons"]) == (4, 2, {"missing": 2})
    assert (result["unannotated"], result["shared_ids"]) == (1, 2)
    texts = capt.prepare_captions(**options, annotations=roots[::-1], split_ratios="1,0,0")
    stored = capt.open_store(tmp_path / "S").caption_table(texts["fingerprint"]).captions().to_pylist()
    found = {row["image_id"]: row["caption"] for row in stored}
    assert found == {"a.jpg@p": "dog 0", "a.jpg@q": "dog 1", "b.jpg@p": "cat 0", "b.jpg@q": "cat 1"}
    assert {row["caption_id"] for row in stored} == {"0"}
    catalog = capt.open_store(tmp_path / "S").dataset("imagefolder").catalog().to_pylist()
    assert {row["image_id"]: Path(row["location"]).parent.name for row in catalog} == {"a.jpg@p": "p", "a.jpg@q": "q"}


def test_a_name_in_another_unicode_form_or_with_backslashes_is_found(tmp_path: Path) -> None:
    root = write(tmp_path / "x", {"caf\u00e9.jpg": "", "d/a.jpg": ""})
    (tmp_path / "x" / "metadata.csv").write_text("file_name,text\ncafe\u0301.jpg,A dog\nd\\a.jpg,A cat\n", "utf-8")
    result = capt.prepare_features(
        store=str(tmp_path / "S"), dataset_type="imagefolder", images=[root], extractor="pixels", height=8, width=8
    )
    assert (result["input"], result["failed"], result["unannotated"]) == (2, 0, 0)


def test_a_corrupt_row_group_of_metadata_costs_its_rows(tmp_path: Path) -> None:
    rows = {"file_name": [f"{n}.jpg" for n in range(6)], "text": [f"dog {n}" for n in range(6)]}
    path = parquet(tmp_path / "x" / "metadata.parquet", rows)
    corrupt(path, 1, "text")
    lost = [(f"metadata.parquet: row {number}", "unreadable") for number in (3, 4)]
    assert captions(str(tmp_path / "x")) == [*((f"{n}.jpg", f"dog {n}") for n in (0, 1, 4, 5)), *lost]


def test_an_archive_is_read_as_a_directory(tmp_path: Path) -> None:
    root = write(tmp_path / "x", {"a.jpg": "", "metadata.csv": "file_name,text\na.jpg,A dog\n"})
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in Path(root).iterdir():
            archive.write(path, path.name)
    assert captions(str(tmp_path / "x.zip")) == [("a.jpg", "A dog")]


def test_metadata_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    root = write(tmp_path / "x", {"metadata.parquet": "no parquet"})
    with pytest.raises(CaptError, match=r"metadata\.parquet: the Parquet file cannot be read"):
        captions(root)
    root = write(tmp_path / "y", {"metadata.csv": "name,text\na.jpg,A dog\n"})
    with pytest.raises(UsageError, match="no column 'file_name'"):
        captions(root)
    with pytest.raises(UsageError, match="no such directory"):
        captions(str(tmp_path / "z"))
