"""`capt inspect` tells which files no command uses, and fails if the user has named one of them."""

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capt
from schemas.errors import UsageError
from tests.conftest import noise_image
from tests.pipelines.inspection.printed_commands import inspect, names, parse

IMAGES = ("long_name_1.jpg", "long_name_2.jpg")
CAPTIONS = "image,caption\nlong_name_1.jpg,A dog runs.\n"
WRONG = "foto,text\nlong_name_1.jpg,A dog runs.\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_parquet(path: Path) -> Path:
    path.mkdir()
    noise_image(0, 32, 24).save(path / "a.png")
    image = {"bytes": (path / "a.png").read_bytes(), "path": "a.png"}
    (path / "a.png").unlink()
    pq.write_table(pa.table({"image": [image], "text": ["A dog runs."]}), path / "train-00000.parquet")
    return path


def list_unused(*paths: Path) -> list[str]:
    return [one["path"] for one in capt.inspect(paths=[str(path) for path in paths])["unused"]]


def test_a_named_file_that_no_command_uses_is_wrong_usage_and_the_result_is_still_shown(tmp_path: Path) -> None:
    photos = names(tmp_path / "photos", *IMAGES)
    table, wrong = write(tmp_path / "train.csv", CAPTIONS), write(tmp_path / "val.csv", WRONG)
    other = write(tmp_path / "other/stats.csv", "name,value\na,b\n").parent
    urls = write(tmp_path / "urls.csv", "url,caption\nhttps://example.com/1.jpg,A dog\n")
    cases = [
        ([wrong, photos], "folder"),
        ([table, wrong], "csv"),
        ([photos, make_parquet(tmp_path / "parquet")], "huggingface"),
        ([urls, other], "urls"),
    ]
    unused = [wrong, wrong, photos, other]
    for (paths, dataset_type), expected in zip(cases, unused, strict=True):
        with pytest.raises(UsageError) as caught:
            inspect(*paths)
        assert caught.value.location == str(expected)
        assert caught.value.summary is not None
        assert [one["dataset_type"] for one in caught.value.summary["candidates"]] == [dataset_type]
        assert caught.value.summary["unused"][0]["path"] == str(expected)


def test_files_in_a_named_directory_that_no_command_uses_are_listed(tmp_path: Path) -> None:
    """Tables with other columns, corrupt and compressed archives, a table in an archive, and a second label file."""
    photos = names(tmp_path / "photos", *IMAGES)
    write(photos / "captions.csv", CAPTIONS)
    (found,) = inspect(photos)
    for name in ("wrong.csv", "bad.zip", "more.tar.gz"):
        write(photos / name, WRONG)
    assert set(list_unused(photos)) == {str(photos / name) for name in ("wrong.csv", "bad.zip", "more.tar.gz")}
    assert inspect(photos) == [found]
    labelled = names(tmp_path / "labelled", "a0.png", "a1.png")
    write(labelled / "test.csv", "image,label\na0.png,7Hq\n")
    write(labelled / "train.csv", "image,label\na1.png,3xz\n")
    assert list_unused(labelled) == [str(labelled / "train.csv")]
    assert list_unused(labelled, labelled / "train.csv") == [str(labelled / "test.csv")]
    with zipfile.ZipFile(tmp_path / "kaggle.zip", "w") as archive:
        archive.writestr("captions.txt", CAPTIONS)
        archive.write(photos / IMAGES[0], f"Images/{IMAGES[0]}")
    assert list_unused(tmp_path / "kaggle.zip") == [str(tmp_path / "kaggle.zip/captions.txt")]


def test_a_file_that_is_read_with_others_is_used(tmp_path: Path) -> None:
    """The split lists of Flickr8k have no captions of their own."""
    token = write(tmp_path / "Flickr8k.token.txt", "a.jpg#0\tA dog runs.\n")
    split = write(tmp_path / "Flickr_8k.trainImages.txt", "a.jpg\n")
    (found,) = inspect(token, split)
    assert parse(found["commands"][1]).annotations == (str(token), str(split))
    assert found["records"][0]["split"] == "train"


def test_every_archive_of_a_directory_is_in_the_command(tmp_path: Path) -> None:
    """Only the first eight are opened, so it is unknown whether an image that they lack is there."""
    (image,) = names(tmp_path / "photos", "a.jpg").iterdir()
    archives = [tmp_path / f"data/{number}.zip" for number in range(9)]
    rows = [f"long_name_{number}.jpg,A dog runs." for number in (0, 8)]
    write(tmp_path / "data/captions.csv", "\n".join(["image,caption", *rows]))
    for number, path in enumerate(archives):
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(image, f"long_name_{number}.jpg")
    (found,) = inspect(tmp_path / "data")
    assert parse(found["commands"][0]).images == tuple(map(str, archives))
    assert [one["found"] for one in found["records"]] == [True, None]
    for number, path in enumerate(archives):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("captions.csv", f"image,caption\nlong_name_{number}.jpg,A dog runs.\n")
    (tmp_path / "data/captions.csv").unlink()
    (found,) = inspect(tmp_path / "data")
    assert parse(found["commands"][1]).annotations == tuple(map(str, archives))


def test_every_annotation_file_of_a_directory_is_in_the_command_if_the_first_ones_are_readable(tmp_path: Path) -> None:
    line = json.dumps({"image": "a.jpg", "caption": "A dog runs."})
    files = [write(tmp_path / f"part-{number}.json", line) for number in range(9)]
    (found,) = inspect(tmp_path)
    assert parse(found["commands"][1]).annotations == tuple(map(str, files))
    files[3].write_text("[]")
    (found,) = inspect(tmp_path)
    used = parse(found["commands"][1]).annotations
    assert sorted([*used, *list_unused(tmp_path)]) == list(map(str, files))
    assert str(files[8]) not in used


def test_lists_of_urls_are_named_one_by_one_if_their_directory_has_other_tables(tmp_path: Path) -> None:
    urls = write(tmp_path / "urls.csv", "url,caption\nhttps://example.com/1.jpg,A dog\n")
    (found,) = inspect(tmp_path)
    assert parse(found["commands"][1]).annotations == (str(tmp_path),)
    stats = write(tmp_path / "stats.csv", "name,value\na,b\n")
    (found,) = inspect(tmp_path)
    assert parse(found["commands"][1]).annotations == (str(urls),)
    assert list_unused(tmp_path) == [str(stats)]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.csv", "image,beschreibung\na.jpg,Ein Hund\n", "--caption-column"),
        ("a.tsv", "foto\tcaption\na.jpg\tEin Hund\n", "--image-column"),
        ("a.csv", "url,beschreibung\nhttps://example.com/1.jpg,Ein Hund\n", "--caption-column"),
        ("a.json", '[{"image": "a.jpg"}]', "not an object"),
        ("captions_train2017.json", '{"images": [], "annotation": []}', "COCO"),
    ],
)
def test_the_problem_is_that_of_the_reader_that_fits_best(tmp_path: Path, name: str, text: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        inspect(write(tmp_path / name, text))
    assert word in str(caught.value)


@pytest.mark.parametrize("option", ["image_column", "label_column", "group_column"])
def test_columns_that_a_type_does_not_have_are_wrong_usage(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError):
        inspect(names(tmp_path, *IMAGES, "a1b2.png", "c3d4.png"), **{option: "foto"})


def test_a_table_beside_metadata_or_encoded_images_is_not_used(tmp_path: Path) -> None:
    images = names(tmp_path / "images", *IMAGES)
    write(images / "metadata.csv", CAPTIONS.replace("image", "file_name"))
    for directory in (images, make_parquet(tmp_path / "parquet")):
        assert list_unused(directory) == []
        write(directory / "captions.csv", CAPTIONS)
        assert list_unused(directory) == [str(directory / "captions.csv")]


def test_a_path_of_the_name_of_another_value_of_the_command_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "S", "notes")
    with pytest.raises(UsageError) as caught:
        inspect("S", write(tmp_path / "captions.csv", CAPTIONS))
    assert caught.value.location == "S"


def test_a_single_image_beside_a_table_is_not_used(tmp_path: Path) -> None:
    image = names(tmp_path, *IMAGES) / IMAGES[0]
    with pytest.raises(UsageError) as caught:
        inspect(image, write(tmp_path / "captions.csv", CAPTIONS))
    assert caught.value.location == str(image)
