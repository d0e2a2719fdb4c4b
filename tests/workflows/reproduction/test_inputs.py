"""Data and extractor of a recipe are compared with their checksums before anything is prepared."""

import gzip
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import capt
from pipelines.fetch.published_files import PUBLISHED
from schemas.errors import CaptError, UsageError
from schemas.options.workflows import Reproduce
from tests.conftest import noise_image, zip_of
from tests.workflows.reproduction.files import given, write_data, write_recipe
from trainer.runs.directory import lock_run
from workflows.reproduction import inputs
from workflows.reproduction.inputs import Inputs, find_extractors, provide_inputs
from workflows.reproduction.recipe_files import find_recipe, list_names


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def provide(recipe: Path, root: Path, **options: Any) -> Inputs:
    return provide_inputs(find_recipe(str(recipe)), Reproduce(recipe=str(recipe), **options), root)


def test_equal_data_have_no_deviation_and_further_images_are_counted(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    found = provide(recipe, tmp_path, **given(data))
    assert found.deviations == ()
    assert found.to_dict() == {
        "origin": "given",
        "images": {"expected": 13, "different": 0, "unlisted": 3},
        "files": dict.fromkeys(("Flickr8k.token.txt", "Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt"), True),
    }


def test_data_in_archives_are_compared_as_well(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    images = zip_of(data / "photos", tmp_path / "photos.zip")
    with ZipFile(tmp_path / "text.zip", "w") as archive:
        for path in data.glob("*.txt"):
            archive.write(path, path.name)
    found = provide(recipe, tmp_path, images=[str(images)], annotations=[str(tmp_path / "text.zip")], split="test")
    assert found.deviations == ()


def test_lists_beside_the_token_file_need_not_be_named(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    found = provide(recipe, tmp_path, images=[str(data / "photos")], annotations=[str(data / "Flickr8k.token.txt")])
    assert set(found.files_checked) == {"Flickr8k.token.txt", "Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt"}


def test_compressed_files_are_compared_as_well(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    for name in ("Flickr8k.token.txt", "Flickr_8k.devImages.txt"):
        (data / f"{name}.gz").write_bytes(gzip.compress((data / name).read_bytes()))
        (data / name).unlink()
    for annotations in (data, data / "Flickr8k.token.txt.gz"):
        found = provide(recipe, tmp_path, images=[str(data / "photos")], annotations=[str(annotations)])
        assert list(found.files_checked.values()) == [True, True, True]


def test_images_and_captions_with_other_content_are_deviations(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    for number in (1, 2):
        noise_image(number, 200, 150).save(data / "photos" / f"{number}.jpg")
    with (data / "Flickr8k.token.txt").open("a") as file:
        file.write("\n1.jpg#2\tone more")
    captions, images = provide(recipe, tmp_path, **given(data)).deviations
    assert images == "2 of 13 images differ from those of the recipe: their SHA-256 is another one."
    assert captions == "Flickr8k.token.txt differs from that of the recipe: its SHA-256 is another one."
    assert len([record for record in caplog.records if "The bands do not apply" in record.getMessage()]) == 2


def test_missing_images_are_counted_in_one_line(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    for number in (3, 5):
        (data / "photos" / f"{number}.jpg").unlink()
    with pytest.raises(UsageError, match=r"^--images: 2 of 13 images of the recipe are missing, such as 3\.jpg\. Add"):
        provide(recipe, tmp_path, **given(data))


def test_missing_files_are_named(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    (data / "Flickr_8k.testImages.txt").unlink()
    with pytest.raises(UsageError, match=r"Flickr_8k\.testImages\.txt is missing for the split test\. Add the file by"):
        provide(recipe, tmp_path, **given(data), split="test")
    with pytest.raises(UsageError, match=r"--annotations: the annotations are missing\. Set both options"):
        provide(recipe, tmp_path, images=[str(data / "photos")])
    with pytest.raises(UsageError, match=r"--images: the images are missing"):
        provide(recipe, tmp_path, annotations=[str(data)])
    with pytest.raises(UsageError, match=r"the recipe cannot download its data. Set --images and --annotations"):
        provide(recipe, tmp_path)


def test_corrupt_checksums_name_the_line(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    (tmp_path / "tiny.sha256").write_text("abc  0.jpg\n")
    with pytest.raises(UsageError, match=r"tiny\.sha256: line 1: expected a SHA-256 and a name"):
        provide(recipe, tmp_path, **given(data))
    (tmp_path / "tiny.sha256").unlink()
    with pytest.raises(UsageError, match=r"tiny\.sha256: the checksums cannot be read"):
        provide(recipe, tmp_path, **given(data))


def test_the_extractor_is_the_pinned_file(tmp_path: Path) -> None:
    recipe = find_recipe("flickr8k-merge")
    other = tmp_path / "other.keras"
    other.write_bytes(b"other")
    with pytest.raises(UsageError, match=r"--extractor: the recipe needs efficientnet_lite0\.keras \(SHA-256 891f90f8"):
        find_extractors(recipe, None)
    with pytest.raises(UsageError, match="no such file"):
        find_extractors(recipe, f"custom:{tmp_path / 'none.keras'}")
    with pytest.raises(
        UsageError, match=r"the SHA-256 of the file is d9298a10d1b07358.*, and the recipe needs 891f90f8"
    ):
        find_extractors(recipe, f"custom:{other}")
    with pytest.raises(UsageError, match=r"the recipe has the extractor inception_v3. Omit the option"):
        find_extractors(find_recipe("flickr8k-merge-inception_v3"), str(other))


def test_a_work_directory_contains_nothing_else(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    with pytest.raises(UsageError, match="the directory is not empty and not a work directory: it contains"):
        capt.reproduce(recipe=str(recipe), work_dir=str(tmp_path), **given(data))
    (tmp_path / "run").mkdir()
    with lock_run(tmp_path / "run"), pytest.raises(UsageError, match=r"not a work directory: it contains \.lock"):
        capt.reproduce(recipe=str(recipe), work_dir=str(tmp_path / "run"), **given(data))
    with pytest.raises(UsageError, match="this is not a directory"):
        capt.reproduce(recipe=str(recipe), work_dir=str(recipe), **given(data))
    with pytest.raises(UsageError, match="--work-dir: a value is required"):
        capt.reproduce(recipe=str(recipe), **given(data))


def test_data_are_fetched_and_a_file_in_an_archive_is_unpacked(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = {"dataset": "flickr8k", "images": "photos.zip", "annotations": ["text.zip/Flickr8k.token.txt"]}
    entries = {"title": "noise", "options": {"dataset_type": "flickr8k"}, "fetch": fetch}
    recipe = write_recipe(tmp_path / "tiny.yaml", data, data=entries)
    downloads: list[tuple[str, ...]] = []

    def download(options: Any) -> None:
        downloads.append(options.only)
        Path(options.directory).mkdir(parents=True)
        zip_of(data / "photos", Path(options.directory, "photos.zip"))
        with ZipFile(Path(options.directory, "text.zip"), "w") as archive:
            archive.write(data / "Flickr8k.token.txt", "Flickr8k.token.txt")

    monkeypatch.setattr(inputs, "fetch_dataset", download)
    found = provide(recipe, tmp_path / "work")
    assert downloads == [("photos.zip", "text.zip")]
    assert found.origin == "fetched"
    assert Path(found.annotations[0]).read_bytes() == (data / "Flickr8k.token.txt").read_bytes()
    shutil.rmtree(tmp_path / "work")


def test_recipes_fetch_files_that_are_published() -> None:
    for named in map(find_recipe, list_names()):
        fetch = named.recipe.data and named.recipe.data.fetch
        if fetch:
            known = {file.name for file in PUBLISHED[fetch.dataset].files}
            assert known.issuperset(name.partition("/")[0] for name in (*fetch.images, *fetch.annotations))


def test_generated_data_are_not_given(tmp_path: Path) -> None:
    named = find_recipe("captcha-quick")
    with pytest.raises(UsageError, match=r"--images: the recipe generates its data. Omit the option"):
        provide_inputs(named, Reproduce(recipe="captcha-quick", images=["x"]), tmp_path)


def test_an_unreadable_image_is_named(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", data)
    (data / "photos" / "4.jpg").unlink()
    (data / "photos" / "4.jpg").symlink_to(tmp_path / "nothing")
    with pytest.raises(CaptError, match=r"4\.jpg: the image cannot be read: missing"):
        provide(recipe, tmp_path, **given(data))
