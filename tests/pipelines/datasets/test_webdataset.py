"""Samples of WebDataset shards are read in place by their keys, and each fault costs its own record or shard."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capt
from features.inputs.archives import Tar
from features.text.lines import FailedRecord
from features.text.table_columns import CaptionColumns
from pipelines.datasets import open_reader
from pipelines.datasets.base import EmbeddedReader
from pipelines.datasets.shard_files import find_shards
from schemas.errors import CaptError, UsageError
from tests.conftest import noise_image
from tests.features.buckets import put_s3, s3_server

Member = tuple[str, bytes]


def jpeg(number: int) -> bytes:
    out = io.BytesIO()
    noise_image(number).save(out, "JPEG")
    return out.getvalue()


def tar(path: Path, members: Iterable[Member]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def sample(number: int, *, key: str = "", text: str = "") -> list[Member]:
    key = key or f"{number:09d}"
    return [(f"{key}.jpg", jpeg(number)), (f"{key}.txt", (text or f"A dog {number}").encode())]


def captions(*paths: str, **settings: Any) -> list[tuple[str, str, str]]:
    """Image ID, caption ID and text; for a failed record its location, its reason and nothing."""
    read = open_reader("webdataset", paths, **settings).read_captions()
    return [
        (one.location.rpartition("/")[2], one.reason, "")
        if isinstance(one, FailedRecord)
        else (one.image_id, one.caption_id, one.caption)
        for one in read
    ]


def images(*paths: str, **settings: Any) -> dict[str, str]:
    """File name, or the reason of the failure, by image ID."""
    read = open_reader("webdataset", paths, **settings).read_images()
    return {one.image_id: one.failure.reason if one.failure else one.file_name for one in read}


def test_a_key_ends_at_the_first_dot_after_the_last_slash(tmp_path: Path) -> None:
    members = [("./a.b/c.d.jpg", jpeg(1)), ("a.b/c.txt", b"A dog"), ("README", b"x"), ("a.b/.hidden.jpg", b"x")]
    path = tar(tmp_path / "x.tar", members)
    assert images(path) == {"a.b/c": "x.tar/a.b/c.d.jpg"}
    assert captions(path) == [("a.b/c", "0", "A dog")]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"txt": b"one", "caption": b"two", "json": b'{"caption": "three"}'}, ["one"]),
        ({"caption": b"two", "json": b'{"caption": "three"}'}, ["two"]),
        ({"json": b'{"url": "u", "caption": "three", "key": "k"}'}, ["three"]),
        ({"json": b'{"captions": ["one", "two"]}'}, ["one", "two"]),
        ({"json": b'["one", "two"]'}, ["one", "two"]),
        ({"json": b'["one", null, {"x": "y"}, [], "two"]'}, ["one", *["caption is not text"] * 3, "two"]),
        ({"json": b'{"caption": "one", "captions": {"x": "two"}}'}, ["one", "caption is not text"]),
        ({"json": b'{"caption": "one", "captions": null}'}, ["one"]),
        ({"json": '{"text": "caf\u00e9"}'.encode("utf-16")}, ["caf\u00e9"]),
        ({"txt": b"\xef\xbb\xbfone"}, ["one"]),
        ({"cls": b"7"}, ["no caption"]),
        ({"json": b'{"url": "u"}'}, ["no caption"]),
        ({"json": b'{"caption": null}'}, ["no caption"]),
        ({"json": b'{"caption": 7}'}, ["caption is not text"]),
        ({"json": b'{"caption": "a", "caption": "b"}'}, ["duplicate key"]),
        ({"json": b'{"caption"'}, ["not JSON"]),
        ({"txt": b"caf\xe9"}, ["not UTF-8"]),
        ({"txt": b"x" * (5 << 20)}, ["too large"]),
    ],
)
def test_the_first_field_with_captions_counts(members: dict[str, bytes], found: list[str], tmp_path: Path) -> None:
    own = [("a.jpg", jpeg(1)), *((f"a.{field}", data) for field, data in members.items())]
    path = tar(tmp_path / "x.tar", [*sample(0, key="0"), *own, *sample(2, key="b")])
    first, *read, last = captions(path)
    assert [text or caption_id for _, caption_id, text in read] == found
    assert (first, last) == (("0", "0", "A dog 0"), ("b", "0", "A dog 2"))


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (["meta.captions"], ["one", "two"]),
        (["json.meta.captions"], ["one", "two"]),
        (["json"], ["own"]),
        (["boxes.label"], ["dog", "cat"]),
        (["txt", "meta.captions"], ["text", "one", "two"]),
        (["de.txt"], ["Hund"]),
        (["meta.none"], ["no none"]),
        (["txt", "meta.none"], ["text", "no none"]),
        (["boxes.size"], ["no size", "big"]),
        (["none"], ["no none"]),
    ],
)
def test_named_fields_count(fields: list[str], found: list[str], tmp_path: Path) -> None:
    record = {
        "caption": "own",
        "meta": {"captions": ["one", "two"]},
        "boxes": [{"label": "dog"}, {"label": "cat", "size": "big"}],
    }
    members = [("a.jpg", b""), ("a.txt", b"text"), ("a.de.txt", b"Hund"), ("a.json", json.dumps(record).encode())]
    path = tar(tmp_path / "x.tar", members)
    assert [text or caption_id for _, caption_id, text in captions(path, caption_fields=fields)] == found


def test_an_image_is_one_file_or_named_by_its_field(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.mask.png", b"2"), ("b.jpg", b"3"), ("b.png", b"4"), ("c.mask.png", b"5")]
    path = tar(tmp_path / "x.tar", [*members, ("d.txt", b"A dog")])
    assert images(path) == {"a": "x.tar/a.jpg", "b": "several images", "c": "x.tar/c.mask.png", "d": "no image"}
    assert images(tar(tmp_path / "y.tar", [("a.jpg", b"1"), ("a.JPG", b"2")])) == {"a": "several images"}
    named = images(path, columns=CaptionColumns(image="PNG"))
    assert named == {"a": "no image", "b": "x.tar/b.png", "c": "no image", "d": "no image"}


def test_files_of_a_sample_need_not_be_neighbors_and_repeated_files_contradict_each_other(tmp_path: Path) -> None:
    members = [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)), ("a.txt", b"A dog"), ("b.txt", b"one"), ("b.txt", b"two")]
    path = tar(tmp_path / "x.tar", members)
    assert captions(path) == [("a", "0", "A dog"), ("b", "0", "one"), ("b", "0", "two")]


@pytest.mark.parametrize("given", ["shards/{00000..00002}.tar", "shards", "shards/{00000,00001,00002}.tar"])
def test_shards_are_named_by_pattern_or_directory(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        tar(tmp_path / "shards" / f"{number:05d}.tar", sample(number))
        # The files that img2dataset writes beside each shard.
        (tmp_path / "shards" / f"{number:05d}.parquet").write_bytes(b"PAR1")
        (tmp_path / "shards" / f"{number:05d}_stats.json").write_text("{}")
    assert captions(given) == [(f"{number:09d}", "0", f"A dog {number}") for number in range(3)]


def test_a_file_with_the_name_of_the_pattern_wins_and_a_missing_shard_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tar(tmp_path / "{0..1}.tar", sample(7, key="seven"))
    tar(tmp_path / "0.tar", sample(0))
    assert captions("{0..1}.tar") == [("seven", "0", "A dog 7")]
    with pytest.raises(UsageError, match=r"1\.tar: the file cannot be read"):
        captions("{0,1}.tar")
    with pytest.raises(UsageError, match=r"no such file"):
        captions("2.tar")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000.tar", "train"),
        ("coco_val-0.tar", "val"),
        ("data/test/0.tar", "test"),
        ("0.tar", None),
    ],
)
def test_shard_names_state_splits(path: str, split: str | None, tmp_path: Path) -> None:
    tar(tmp_path / "x" / path, sample(1))
    (entry,) = open_reader("webdataset", [str(tmp_path / "x")]).read_images()
    assert entry.split == split


def test_an_incomplete_shard_costs_what_it_lacks(tmp_path: Path) -> None:
    path = Path(tar(tmp_path / "x.tar", [one for number in range(3) for one in sample(number, key=f"{number}")]))
    # The second image is cut.
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"1.jpg") + 700])
    whole = tar(tmp_path / "y.tar", sample(5, key="5"))
    read = [("0", "0", "A dog 0"), ("1", "no caption", ""), ("x.tar", "incomplete archive", ""), ("5", "0", "A dog 5")]
    assert captions(str(path), whole) == read


def side_file(path: Path, statuses: dict[int, str]) -> None:
    """Writes what img2dataset writes beside a shard."""
    keys = [f"{number:09d}" for number in statuses]
    pq.write_table(pa.table({"key": keys, "status": list(statuses.values()), "url": keys}), path)


def test_a_side_file_tells_what_a_shard_lacks(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    tar(root / "00000.tar", [*sample(0), *sample(1), *sample(2)])
    side_file(root / "00000.parquet", {0: "success", 1: "success", 3: "failed_to_download", 4: "success"})
    tar(root / "00001.tar", sample(5))
    side_file(root / "00001.parquet", {5: "success", 6: "failed_to_download", 7: "failed_to_resize"})
    given = {"store": str(tmp_path / "S"), "dataset_type": "webdataset", "max_failures": "100%"}
    result = capt.prepare_features(**given, images=[str(root)], extractor="pixels", height=8, width=8)
    assert (result["input"], result["ok"], result["reasons"]) == (5, 4, {"missing": 1})
    assert result["not_downloaded"] == {"failed_to_download": 2, "failed_to_resize": 1}
    texts = capt.prepare_captions(**given, annotations=[str(root)])
    assert (texts["input"], texts["ok"], texts["reasons"]) == (5, 4, {"missing": 1})
    assert texts["not_downloaded"] == result["not_downloaded"]


def test_a_side_file_that_cannot_be_read_is_reported_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tar(tmp_path / "0.tar", sample(0))
    (tmp_path / "0.parquet").write_bytes(b"PAR1")
    assert list(images(path)) == [f"{0:09d}"]
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    pq.write_table(pa.table({"image": [b"x"], "text": ["no side file"]}), tmp_path / "0.parquet")
    assert list(images(path)) == [f"{0:09d}"]
    assert len(caplog.records) == 1


def test_a_shard_that_is_no_tar_is_one_failed_record(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"")
    (tmp_path / "1.tar").mkdir()
    with zipfile.ZipFile(tmp_path / "2.tar", "w") as archive:
        archive.writestr("a.txt", "A dog")
    (tmp_path / "3.tar").write_bytes(b"PAR1")
    tar(tmp_path / "4.tar", sample(4))
    lost = {f"{number}.tar": "no tar archive" for number in range(4)}
    pattern = str(tmp_path / "{0..4}.tar")
    assert captions(pattern) == [*((name, reason, "") for name, reason in lost.items()), ("000000004", "0", "A dog 4")]
    assert list(images(pattern).values()) == [*lost.values(), "4.tar/000000004.jpg"]
    with pytest.raises(UsageError, match=r"0\.tar"):
        captions(str(tmp_path / "{0..3}.tar"))


def test_failed_samples_of_one_key_are_counted_in_each_shard(tmp_path: Path) -> None:
    shards = [tar(tmp_path / f"{number}.tar", [("a.txt", b"A dog")]) for number in range(2)]
    shards.append(tar(tmp_path / "2.tar", sample(1, key="a")))
    result = capt.prepare_features(
        store=str(tmp_path / "S"),
        dataset_type="webdataset",
        images=shards,
        max_failures="100%",
        extractor="pixels",
        height=8,
        width=8,
    )
    assert (result["input"], result["ok"], result["reasons"]) == (3, 1, {"no image": 2})


def test_a_label_is_a_path_below_the_named_one_and_stays_when_shards_are_added(tmp_path: Path) -> None:
    for name in ("a/0.tar", "a/x/0.tar", "b/0.tar", "b/1.tar"):
        tar(tmp_path / name, sample(0))

    def labels(*paths: str) -> list[str]:
        return [one.label for one in find_shards([str(tmp_path / path) for path in paths], [".tar"], expand=True)]

    assert labels("a") == ["0.tar", "x/0.tar"]
    assert labels("b/{0,1}.tar", "b/1.tar") == ["0.tar", "1.tar"]
    assert labels("{a,b}/0.tar") == ["a/0.tar", "b/0.tar"]
    # Only equal labels become longer.
    assert labels("a", "b") == ["a/0.tar", "x/0.tar", "b/0.tar", "1.tar"]
    assert labels("b", "a") == ["b/0.tar", "1.tar", "a/0.tar", "x/0.tar"]


def test_a_storage_that_stops_sending_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Tar, *arguments: Any) -> Iterator[Any]:
        yield next(read(self, *arguments))
        raise CaptError("the connection is lost")

    path, read = tar(tmp_path / "x.tar", sample(0)), Tar.read_in_order
    monkeypatch.setattr(Tar, "read_in_order", stop)
    with pytest.raises(CaptError, match="the connection is lost"):
        captions(path)


def test_every_sample_is_accounted_for(tmp_path: Path) -> None:
    repeated = [*sample(3, key="twice"), *sample(4, key="twice")]
    same = [*sample(5, key="same"), *sample(5, key="same")]
    lone = [("lone.txt", b"A cat")]
    broken = [("broken.jpg", jpeg(6)[:-200]), ("broken.txt", b"A cow")]
    shards = [
        tar(tmp_path / "a" / "train-0.tar", [*sample(0), *sample(1), *repeated, *same, *lone, *broken]),
        tar(tmp_path / "a" / "val-0.tar", [*sample(2), *sample(7, key="000000001")]),
    ]
    store = str(tmp_path / "S")
    options = {"store": store, "dataset_type": "webdataset", "max_failures": "100%"}
    sizes = {"extractor": "pixels", "height": 8, "width": 8}
    result = capt.prepare_features(**options, images=shards, **sizes)
    assert (result["input"], result["ok"], result["failed"]) == (8, 5, 3)
    assert result["reasons"] == {"ambiguous": 1, "no image": 1, "truncated": 1}
    assert result["shared_ids"] == 1
    rows = {row["image_id"]: row["split"] for row in capt.open_store(store).dataset("webdataset").catalog().to_pylist()}
    assert rows == {
        "000000000": "train",
        "000000001@train-0.tar/000000001.jpg": "train",
        "000000001@val-0.tar/000000001.jpg": "val",
        "000000002": "val",
        "same": "train",
    }
    texts = capt.prepare_captions(**options, annotations=shards)
    assert (texts["input"], texts["ok"], texts["duplicate"]) == (10, 7, 1)
    assert texts["reasons"] == {"duplicate id": 1, "no image": 1}
    again = capt.prepare_features(**options, images=[str(tmp_path / "a")], **sizes)
    assert (again["cached"], again["ok"], again["input"]) == (5, 0, 8)


def test_a_zip_is_no_shard_and_annotations_are_not_given_twice(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", sample(1))
    assert isinstance(open_reader("webdataset", [path]), EmbeddedReader)
    with pytest.raises(UsageError, match="--annotations: the images of dataset type webdataset contain"):
        capt.prepare_features(
            store=str(tmp_path / "S"), dataset_type="webdataset", images=[path], annotations=[str(tmp_path)]
        )
    (tmp_path / "y.tar").write_bytes(b"no tar")
    with pytest.raises(UsageError, match=r"y\.tar"):
        captions(str(tmp_path / "y.tar"))
    assert captions(path) == [(f"{1:09d}", "0", "A dog 1")]


def test_shards_in_a_bucket_are_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for number in range(2):
            data = Path(tar(tmp_path / f"{number}.tar", sample(number))).read_bytes()
            root = put_s3(environment, f"shards/train-{number}.tar", data).rpartition("/")[0]
        for given in (f"{root}/train-{{0..1}}.tar", root):
            assert captions(given) == [(f"{number:09d}", "0", f"A dog {number}") for number in range(2)]
        reader = open_reader("webdataset", [root])
        assert isinstance(reader, EmbeddedReader)
        assert [one.split for one in reader.read_images()] == ["train", "train"]
        assert [one.reference.read() for one in reader.list_files()] == [jpeg(0), jpeg(1)]
