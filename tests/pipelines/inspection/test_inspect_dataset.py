"""`capt inspect` names the type of every layout, shows its first records, and prints the commands that prepare it."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capt
from pipelines.datasets import DATASET_READERS, open_source
from pipelines.datasets.base import CaptionEntry, ImageEntry
from pipelines.datasets.label_sources import open_label_reader
from schemas.errors import UsageError
from schemas.options.prepare import PrepareCaptcha, PrepareCaptions, PrepareFeatures
from tests.commands import CommandServer
from tests.conftest import noise_image
from tests.features.buckets import BUCKET, put_s3, s3_server
from tests.pipelines.datasets.layouts import LAYOUTS, Layout
from tests.pipelines.inspection.printed_commands import inspect, names, parse

PUBLISHED = [name for name in LAYOUTS if name != "folder"]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layout]:
    """Every dataset in its published layout."""
    root = tmp_path_factory.mktemp("layouts")
    for name in LAYOUTS:
        (root / name).mkdir()
    return {name: make(root / name) for name, make in LAYOUTS.items()}


def read(options: PrepareFeatures) -> list[tuple[str, str | None, list[str]]]:
    """The first five images that `prepare` reads, with their splits and captions."""
    reader = open_source(options)
    images: dict[tuple[str, str], ImageEntry] = {}
    for image in reader.read_images():
        images.setdefault((image.document, image.image_id), image)
    first = list(images.values())[:5]
    captions: dict[tuple[str, str], list[str]] = {}
    for one in reader.read_captions():
        if isinstance(one, CaptionEntry):
            captions.setdefault((one.document, one.image_id), []).append(one.caption)
    return [(one.file_name or one.image_id, one.split, captions.get((one.document, one.image_id), [])) for one in first]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_command_of_every_layout_opens_its_reader_which_reads_the_shown_records(
    layouts: dict[str, Layout], name: str
) -> None:
    layout = layouts[name]
    paths = dict.fromkeys([*layout.annotations, *layout.images])
    (found,) = inspect(*paths)
    features, captions = map(parse, found["commands"])
    assert (found["dataset_type"], found["placeholders"]) == (name, {})
    assert isinstance(features, PrepareFeatures)
    assert isinstance(captions, PrepareCaptions)
    assert type(open_source(captions)) is type(open_source(features)) is DATASET_READERS[name]
    assert features.images == tuple(layout.images)
    shown = [(one["image"], one["split"], one["captions"]) for one in found["records"]]
    assert shown == read(features)[: len(shown)]
    assert len(shown) == (4 if name in ("webdataset", "huggingface") else 5)  # Their first shard has four.


def test_annotations_without_images_have_a_placeholder_in_the_command(layouts: dict[str, Layout]) -> None:
    (found,) = inspect(*layouts["karpathy"].annotations)
    assert list(found["placeholders"]) == ["DIR"]
    assert parse(found["commands"][0]).images == ("DIR",)
    assert {one["found"] for one in found["records"]} == {None}


def test_files_that_are_not_one_dataset_are_refused(layouts: dict[str, Layout], tmp_path: Path) -> None:
    """Annotations of two years of COCO share images; Karpathy's files are of three datasets."""
    with zipfile.ZipFile(layouts["coco"].annotations[0]) as archive:
        archive.extractall(tmp_path / "coco")
    (val,) = (tmp_path / "coco").rglob("captions_val2014.json")
    (found,) = inspect(tmp_path / "coco")
    assert len(parse(found["commands"][1]).annotations) == 2
    val.rename(val.with_name("captions_val2017.json"))
    with zipfile.ZipFile(layouts["karpathy"].annotations[0]) as archive:
        archive.extractall(tmp_path / "karpathy")
    (one,) = (tmp_path / "karpathy").rglob("*.json")
    shutil.copy(one, one.with_name("dataset_flickr8k.json"))
    for kind in ("coco", "karpathy"):
        with pytest.raises(UsageError):
            inspect(tmp_path / kind)


def test_records_say_whether_the_image_file_is_there(layouts: dict[str, Layout], tmp_path: Path) -> None:
    names(tmp_path / "some", "photo 0.jpg", "photo 2.jpg")
    (found,) = inspect(*layouts["csv"].annotations, tmp_path / "some")
    assert [one["found"] for one in found["records"]] == [True, False, True, False, False]


def test_unreadable_captions_are_counted(layouts: dict[str, Layout]) -> None:
    (found,) = inspect(*layouts["csv"].annotations)
    unreadable = sum(layouts["csv"].malformed.values())
    assert (found["unreadable"]["unreadable"], found["unreadable"]["read"]) == (unreadable, 10)
    (found,) = inspect(*layouts["coco"].annotations)
    assert found["unreadable"] is None


def test_a_directory_with_everything_in_it_is_enough(layouts: dict[str, Layout]) -> None:
    """Also if images and annotations are archives."""
    (csv,) = inspect(Path(layouts["csv"].annotations[0]).parent)
    (coco,) = inspect(Path(layouts["coco"].images[0]).parent)
    assert (csv["dataset_type"], coco["dataset_type"]) == ("csv", "coco")
    assert {one["found"] for one in [*csv["records"], *coco["records"]]} == {True}


def test_columns_that_are_named_are_in_the_commands(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("photo,english\na.jpg,A dog runs.\nb.jpg,A cat sleeps.\n")
    with pytest.raises(UsageError):
        inspect(tmp_path / "reviews.csv")
    (found,) = inspect(tmp_path / "reviews.csv", image_column="photo", caption_column=["english"])
    for command in map(parse, found["commands"]):
        assert (command.image_column, command.caption_column) == ("photo", ("english",))


def test_compressed_annotations_and_an_array_of_features_are_recognized(tmp_path: Path) -> None:
    import gzip

    line = json.dumps({"image": "a.jpg", "caption": "A dog runs."}).encode()
    (tmp_path / "captions.jsonl.gz").write_bytes(gzip.compress(line))
    (found,) = inspect(tmp_path / "captions.jsonl.gz")
    assert (found["dataset_type"], found["records"][0]["captions"]) == ("jsonl", ["A dog runs."])
    np.save(tmp_path / "features.npy", np.zeros((3, 8), np.float32))
    (found,) = inspect(tmp_path / "features.npy")
    assert found["dataset_type"] == "arrays"
    assert "--from-arrays" in found["commands"][0]
    assert set(found["placeholders"]) == {"DIR", "TYPE", "FILE"}


@pytest.mark.parametrize("name", ["laion.parquet", "coyo.csv"])
def test_a_list_of_urls_is_downloaded_to_a_new_directory(tmp_path: Path, name: str) -> None:
    rows = {"id": ["1", "2"], "URL": ["https://example.com/1.jpg", "https://example.com/2.jpg"], "TEXT": ["A dog"] * 2}
    if name.endswith(".csv"):
        (tmp_path / name).write_text("\n".join(map(",".join, [[*rows], *zip(*rows.values(), strict=True)])))
    else:
        pq.write_table(pa.table(rows), tmp_path / name)
    (found,) = inspect(tmp_path / name)
    assert (found["dataset_type"], found["placeholders"]) == ("urls", {})
    assert [(one["image"], one["captions"]) for one in found["records"]] == [(url, ["A dog"]) for url in rows["URL"]]
    assert [type(open_source(parse(line))) for line in found["commands"]] == [DATASET_READERS["urls"]] * 2


def test_class_directories_are_classes_or_a_folder(tmp_path: Path) -> None:
    classes, folder = inspect(names(tmp_path, "cat/long_name_1.jpg", "cat/long_name_2.jpg", "dog/long_name_1.jpg"))
    assert (classes["dataset_type"], folder["dataset_type"]) == ("imagefolder", "folder")
    assert [one["captions"] for one in classes["records"]] == [["cat"], ["cat"], ["dog"]]
    assert len(folder["commands"]) == 1
    assert open_source(parse(folder["commands"][0])).__class__ is DATASET_READERS["folder"]


@pytest.mark.parametrize(
    ("images", "kinds"),
    [
        (["2b827.png", "2bg48.png", "x37bf.png"], ["captcha", "folder"]),
        (["0.png", "1.png", "2.png"], ["folder"]),
        (["IMG_0001.jpg", "IMG_0700.jpg", "IMG_0020.jpg"], ["folder"]),
    ],
)
def test_names_may_be_labels_unless_they_only_count(tmp_path: Path, images: list[str], kinds: list[str]) -> None:
    found = inspect(names(tmp_path, *images))
    assert [one["dataset_type"] for one in found] == kinds
    if kinds[0] == "captcha":
        assert [one["label"] for one in found[0]["records"]] == ["2b827", "2bg48", "x37bf"]
        options = parse(found[0]["commands"][0])
        assert isinstance(options, PrepareCaptcha)
        open_label_reader(options, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "image,label\na0.png,7Hq\na1.png,3xz\n"),
        ("spec_train_val.txt", "a0 7Hq\na1 3xz\n"),
        ("labels.txt", "7Hq\n3xz\n"),
        ("labels.jsonl", '{"image": "a0.png", "text": "7Hq"}\n{"image": "a1.png", "text": "3xz"}\n'),
    ],
)
def test_a_label_file_beside_images_is_a_captcha_dataset(tmp_path: Path, name: str, text: str) -> None:
    images = names(tmp_path, "a0.png", "a1.png")
    (tmp_path / name).write_text(text)
    first, *_ = inspect(images)
    assert [one["label"] for one in first["records"]] == ["7Hq", "3xz"]
    options = parse(first["commands"][0])
    assert (options.images, options.labels) == ((str(images),), str(tmp_path / name))


def test_large_shards_and_tables_are_read_only_at_their_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the shard is zeros, which are no members of a tar."""
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for number in range(3):
            for suffix, data in (("jpg", b"image"), ("txt", b"A dog runs.")):
                path = tmp_path / f"{number}.{suffix}"
                path.write_bytes(data)
                archive.add(path, path.name)
                path.unlink()
    monkeypatch.setattr("pipelines.inspection.excerpt._MAX_MEMBERS", 4)
    (tmp_path / "rows.csv").write_text("image,caption\n" + "a.jpg,A dog runs.\n" * 50)
    monkeypatch.setattr("pipelines.inspection.excerpt._MAX_BYTES", 100)
    (shard,) = inspect(tmp_path / "0.tar")
    assert [one["captions"] for one in shard["records"]] == [["A dog runs."]] * 2
    (table,) = inspect(tmp_path / "rows.csv")
    assert table["records"][0]["captions"] == ["A dog runs."] * 4


def test_a_long_listing_says_that_only_its_beginning_was_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.inspection.contents._MAX_FILES", 2)
    found = capt.inspect(paths=[str(names(tmp_path, "long_name_a.jpg", "long_name_b.jpg", "long_name_c.jpg"))])
    (path,) = found["paths"]
    assert (path["files"], path["complete"]) == (2, False)


def test_names_in_an_archive_that_lead_outside_or_cannot_be_copied_do_no_harm(tmp_path: Path) -> None:
    row = "image,caption\na.jpg,A dog runs.\n"
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        for name in ("../outside.csv", f"{'long' * 100}.csv", "same.csv", "same.csv/inner.csv"):
            archive.writestr(name, row)
    with pytest.raises(UsageError):
        inspect(tmp_path / "rows.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.zip"]


def corrupt(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def make_wrong(kind: str, root: Path) -> Path:
    """Returns a path that is no dataset."""
    path = root / kind
    match kind:
        case "empty":
            path.mkdir()
        case "nested.zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("inner.tar", bytes(1024))
        case "corrupt.zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.jpg", bytes(1024))
            corrupt(path)
        case "corrupt.tar":
            path.write_bytes(b"no tar" * 500)
        case "corrupt.parquet":
            pq.write_table(pa.table({"a": [1]}), path)
            corrupt(path)
        case "numbers.parquet":
            pq.write_table(pa.table({"a": [1]}), path)
        case "pickles":
            path.mkdir()
            (path / "features.pkl").write_bytes(pickle.dumps([1]))
        case "objects.npy":
            np.save(path, np.array([{}], object), allow_pickle=True)
        case "photo.jpg":
            noise_image(0).save(path)
        case "notes.txt" | "truncated.json":
            path.write_text('{"images": [')
        case "empty.csv":
            path.touch()
        case "photos.tar.gz":
            path.write_bytes(b"\x1f\x8b" + bytes(20))
    return path


WRONG = [
    *("missing", "empty", "nested.zip", "corrupt.zip", "corrupt.tar", "corrupt.parquet", "numbers.parquet", "pickles"),
    *("objects.npy", "photo.jpg", "notes.txt", "truncated.json", "empty.csv", "photos.tar.gz"),
]


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_dataset_is_wrong_usage_in_one_line(tmp_path: Path, kind: str) -> None:
    path = make_wrong(kind, tmp_path)
    with pytest.raises(UsageError) as caught:
        inspect(path)
    assert str(path) in str(caught.value)
    assert "capt-inspect-" not in str(caught.value)


def test_a_path_that_is_not_utf_8_is_wrong_usage_and_an_image_of_such_a_name_is_listed(tmp_path: Path) -> None:
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe4"))
    directory.mkdir()
    with pytest.raises(UsageError):
        inspect(directory)
    images = names(tmp_path / "good", "long_name_1.jpg")
    shutil.copy(images / "long_name_1.jpg", os.fsencode(images) + b"/\xe4\xf6\xfc.jpg")
    (found,) = inspect(images)
    assert len(found["records"]) == 2


def test_the_result_is_printed_as_text_or_json(
    layouts: dict[str, Layout], tmp_path: Path, commands: CommandServer
) -> None:
    path = layouts["huggingface"].images[0]
    shown, printed, wrong = (commands.capt("inspect", *one) for one in ([path], [path, "--json"], [tmp_path]))
    result = json.loads(printed.stdout)
    assert (shown.returncode, printed.returncode, wrong.returncode) == (0, 0, 2)
    assert all(line in shown.stdout.splitlines() for line in result["candidates"][0]["commands"])
    assert wrong.stderr.count("\n") == 1


def test_nothing_but_the_standard_readers_is_imported(layouts: dict[str, Layout]) -> None:
    program = (
        f"import sys, capt; capt.inspect(paths={layouts['huggingface'].images!r}); "
        "assert not {'tensorflow', 'keras', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_bucket_is_read_like_a_directory(
    layouts: dict[str, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPT_CACHE_DIR", str(tmp_path))
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for kind in ("csv", "flickr8k", "webdataset", "huggingface"):
            layout = layouts[kind]
            for root in {Path(path) for path in (*layout.images, *layout.annotations)}:
                for path in [root] if root.is_file() else filter(Path.is_file, root.rglob("*")):
                    put_s3(environment, f"{kind}/{path.relative_to(root.parent)}", path.read_bytes())
            there, here = (
                inspect(f"s3://{BUCKET}/{kind}"),
                inspect(*dict.fromkeys([*layout.annotations, *layout.images])),
            )
            assert [one["dataset_type"] for one in there] == [kind]
            assert [one["captions"] for one in there[0]["records"]] == [one["captions"] for one in here[0]["records"]]
            assert all(f"s3://{BUCKET}/{kind}" in line for line in there[0]["commands"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "webdataset", "huggingface"])
def test_the_printed_commands_run(
    layouts: dict[str, Layout], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = layouts[name]
    (found,) = inspect(*dict.fromkeys([*layout.annotations, *layout.images]))
    monkeypatch.chdir(tmp_path)
    small = {"extractor": "pixels", "height": 8, "width": 8, "max_failures": "50%"}
    features, captions = map(parse, found["commands"])
    done = capt.prepare_features(**{**features.model_dump(exclude_defaults=True), **small})
    told = capt.prepare_captions(**{**captions.model_dump(exclude_defaults=True), "max_failures": "50%"})
    assert done["ok"] == 5
    assert told["ok"] == layout.captions
