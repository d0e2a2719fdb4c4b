"""Hostile inputs fail with their reason, within bounded memory, and never escape their directory."""

import contextlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import capt
from features.inputs import list_files
from features.store.commit_log import CommitLog
from schemas.errors import CaptError, CorruptFileError, RecordError, StoreError, UsageError
from tests.conftest import noise_image

SMALL = {"extractor": "mobilenet_v3_small", "weights": "random:7", "max_failures": "100%"}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose table has its frozen extractor, which takes longer to build than the rest of a test."""
    root = tmp_path_factory.mktemp("begun")
    (root / "images").mkdir()
    noise_image(99).save(root / "images" / "first.jpg")
    prepare(root / "store", root / "images", dataset_name="first")
    return root / "store"


@pytest.fixture
def store(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "store"))


def prepare(store: Path, images: Path, **options: Any) -> dict[str, Any]:
    return capt.prepare_features(
        store=str(store), images=[str(images)], **{"dataset_type": "folder", **SMALL, **options}
    )  # type: ignore[no-any-return]


def reasons(result: dict[str, Any]) -> dict[str, str]:
    """What became of each record: its reason where it failed, else its status."""
    return {row["record"]: row["reason"] or row["status"] for row in pq.read_table(result["report"]).to_pylist()}


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises a black picture of any size; its pixels end early."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(8 * (1 + 3 * width)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def pictures() -> dict[str, tuple[bytes, str]]:
    """Encoded images by name, and what is to become of them."""
    image = noise_image(1)
    other = noise_image(2)
    jpeg, png = encoded(image, "JPEG"), encoded(image, "PNG")
    palette = image.quantize(16)
    return {
        "bomb.png": (png_of(30_000, 30_000), "too large"),
        "giant bomb.png": (png_of(60_000, 60_000), "too large"),
        "one pixel.png": (encoded(Image.new("RGB", (1, 1), "red"), "PNG"), "ok"),
        "wide.png": (encoded(Image.new("L", (30_000, 1), 9), "PNG"), "ok"),
        "high.png": (encoded(Image.new("L", (1, 30_000), 7), "PNG"), "ok"),
        "cmyk.jpg": (encoded(image.convert("CMYK"), "JPEG"), "ok"),
        "16 bit.png": (encoded(Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70), "PNG"), "ok"),
        "palette.png": (encoded(palette, "PNG", transparency=0), "ok"),
        "palette.gif": (encoded(palette, "GIF", transparency=0), "ok"),
        "animated.gif": (encoded(image, "GIF", save_all=True, append_images=[other]), "ok"),
        "animated.webp": (encoded(image, "WEBP", save_all=True, append_images=[other]), "ok"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "truncated.png": (png[:-40], "truncated"),
        "corrupt.png": (png[:60] + b"\xff" + png[61:], "corrupt"),
        "a png.jpg": (encoded(other, "PNG"), "ok"),
        "a page.jpg": (b"<!DOCTYPE html><html>404</html>", "unsupported"),
        "a program.png": (b"\x7fELF" + bytes(100), "unsupported"),
        "picture.avif": (encoded(other, "AVIF"), "ok"),
        "animated.avif": (encoded(image, "AVIF", save_all=True, append_images=[other]), "ok"),
        "picture.jp2": (encoded(other, "JPEG2000"), "ok"),
        "picture.ppm": (encoded(noise_image(6), "PPM"), "ok"),
        "bitmap.pbm": (encoded(image.convert("1"), "PPM"), "ok"),
        "bomb.pgm": (b"P5 60000 60000 255\n" + bytes(99), "too large"),
        "truncated.avif": (encoded(other, "AVIF")[:-9], "truncated"),
        "truncated.jp2": (encoded(other, "JPEG2000")[:-2], "truncated"),
        "picture.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported"),
        "empty.jpg": (b"", "empty"),
        "a\nline\x1b[31m.jpg": (b"x", "unsupported"),
        "-rf.jpg": (encoded(noise_image(3), "JPEG"), "ok"),
        "'; DROP TABLE record; --.jpg": (encoded(noise_image(4), "JPEG"), "ok"),
    }


def test_every_unusual_image_is_a_row_or_a_failure_with_its_reason(store: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, (data, _) in pictures().items():
        (images / name).write_bytes(data)
    result = prepare(store, images)
    assert reasons(result) == {name: reason for name, (_, reason) in pictures().items()}
    (table,) = capt.open_store(store).feature_tables()
    assert table.rows == result["ok"] + 1


# === Limits ===


def test_a_larger_limit_accepts_images_that_a_smaller_one_rejected(store: Path, tmp_path: Path, photos: Any) -> None:
    images = photos(2)
    (images / "small.png").write_bytes(encoded(Image.new("RGB", (8, 8), "blue"), "PNG"))
    first = prepare(store, images, max_image_pixels=1000)
    assert (first["ok"], first["reasons"]) == (1, {"too large": 2})
    again = prepare(store, images, max_image_pixels=1000)
    assert (again["cached"], again["failed"], again["shards"]) == (1, 2, 0)
    fewer = prepare(store, images, max_image_pixels=96 * 72 - 1)
    assert (fewer["failed"], fewer["shards"]) == (2, 0)
    more = prepare(store, images, max_image_pixels=96 * 72)
    assert (more["ok"], more["cached"], more["failed"]) == (2, 1, 0)
    assert prepare(store, images, max_image_pixels=1)["cached"] == 3
    assert len(capt.open_store(store).feature_tables()) == 1


def test_an_image_above_the_byte_limit_is_tried_again(store: Path, tmp_path: Path, photos: Any) -> None:
    images = photos(3)
    (images / "large.bmp").write_bytes(encoded(noise_image(9, 400, 300), "BMP"))
    assert reasons(prepare(store, images, max_image_bytes=100_000))["large.bmp"] == "too large"
    assert prepare(store, images)["ok"] == 1


@pytest.mark.parametrize("option", ["max_image_pixels", "max_image_bytes"])
def test_a_limit_of_zero_is_wrong_usage(tmp_path: Path, photos: Any, option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}: "):
        prepare(tmp_path / "store", photos(1), **{option: 0})


# === Folders ===


def test_links_to_files_are_followed_and_links_to_folders_are_not(store: Path, tmp_path: Path, photos: Any) -> None:
    photos(3, folder="elsewhere")
    images = photos(1)
    (images / "file.jpg").symlink_to(tmp_path / "elsewhere" / f"{1:012d}.jpg")
    (images / "folder").symlink_to(tmp_path / "elsewhere")
    (images / "loop").symlink_to(images)
    (images / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (images / "self.jpg").symlink_to(images / "self.jpg")
    (images / "device.jpg").symlink_to("/dev/zero")
    os.mkfifo(images / "pipe.jpg")
    result = prepare(store, images)
    assert reasons(result) == {
        f"{0:012d}.jpg": "ok",
        "file.jpg": "ok",
        "gone.jpg": "missing",
        "self.jpg": "unreadable",
    }


def test_a_name_that_is_not_utf8_is_a_failed_row(store: Path, tmp_path: Path, photos: Any) -> None:
    images = photos(1)
    (images / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encoded(noise_image(5), "JPEG"))
    result = prepare(store, images)
    assert reasons(result) == {f"{0:012d}.jpg": "ok", "caf\\xe9.jpg": "name is not UTF-8"}


def test_names_in_annotations_do_not_escape_the_images_directory(store: Path, tmp_path: Path, photos: Any) -> None:
    images = photos(1)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded(noise_image(8), "JPEG"))
    names = [f"{0:012d}.jpg", "../secret.jpg", str(secret), "a/" * 60_000 + "x.jpg", "\ud800.jpg", "", "%", "..", "\0"]
    annotations = tmp_path / "captions_train2017.json"
    entries = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    annotations.write_text(json.dumps({"images": entries, "annotations": []}))
    result = prepare(store, images, dataset_type="coco", annotations=[str(annotations)])
    assert (result["ok"], result["reasons"]) == (1, {"missing": 6, "NUL byte": 1, "no file_name": 1})


# === Archives ===


def archive_of(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], **options: Any) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of a name that comes twice
        for name, data in members:
            archive.writestr(name, data)
    return path


def flagged(data: bytes, name: bytes, bit: int) -> bytes:
    """The archive with a flag bit set in both headers of a member."""
    changed = bytearray(data)
    for signature, flags, at in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
        place = data.find(signature)
        while data[place + at : place + at + len(name)] != name:
            place = data.find(signature, place + 1)
        changed[place + flags] |= bit
    return bytes(changed)


def link_to(target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("link.jpg")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info, target.encode()


def test_every_unusual_archive_member_has_its_reason_and_none_escapes(store: Path, tmp_path: Path) -> None:
    photo = [encoded(noise_image(number), "JPEG") for number in range(5)]
    bomb = zipfile.ZipInfo("bomb.png")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    squeezed = zipfile.ZipInfo("squeezed.jpg")
    squeezed.compress_type = zipfile.ZIP_BZIP2
    box = tmp_path / "box"
    box.mkdir()
    path = archive_of(
        box / "images.zip",
        [
            ("plain.jpg", photo[0]),
            ("../../escaped.jpg", photo[1]),
            ("/absolute.jpg", photo[2]),
            ("twice.jpg", b"the first"),
            ("twice.jpg", photo[3]),
            link_to("/etc/passwd"),
            ("locked.jpg", photo[4]),
            (bomb, bytes(20 << 20)),
            (squeezed, bytes(100)),
        ],
    )
    path.write_bytes(flagged(path.read_bytes(), b"locked.jpg", 1))
    before = sorted(one for one in tmp_path.rglob("*") if store not in (one, *one.parents))
    result = prepare(store, path, max_image_bytes=1 << 20)
    assert reasons(result) == {
        "plain.jpg": "ok",
        "../../escaped.jpg": "ok",
        "/absolute.jpg": "ok",
        "twice.jpg": "ok",
        "link.jpg": "symbolic link",
        "locked.jpg": "encrypted",
        "bomb.png": "too large",
        "squeezed.jpg": "unsupported compression",
    }
    assert sorted(one for one in tmp_path.rglob("*") if store not in (one, *one.parents)) == before
    assert not Path("/absolute.jpg").exists()


def test_every_unusual_tar_member_has_its_reason_and_none_escapes(store: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.mkdir()
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    twin = tarfile.TarInfo("twin.jpg")
    twin.type, twin.linkname = tarfile.LNKTYPE, "plain.jpg"
    with tarfile.open(box / "images.tar", "w") as archive:
        for info in (link, twin):
            archive.addfile(info)
        for number, name in enumerate(("plain.jpg", "../../escaped.jpg", "/absolute.jpg", "twice.jpg", "./twice.jpg")):
            info, data = tarfile.TarInfo(name), encoded(noise_image(number), "JPEG")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("large.png")
        info.size = 2 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    before = sorted(one for one in tmp_path.rglob("*") if store not in (one, *one.parents))
    assert reasons(prepare(store, box / "images.tar", max_image_bytes=1 << 20)) == {
        "plain.jpg": "ok",
        "../../escaped.jpg": "ok",
        "/absolute.jpg": "ok",
        "twice.jpg": "ok",
        "link.jpg": "symbolic link",
        "twin.jpg": "hard link",
        "large.png": "too large",
    }
    assert sorted(one for one in tmp_path.rglob("*") if store not in (one, *one.parents)) == before


def test_a_member_larger_than_its_header_states_is_a_failed_row(store: Path, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.jpg")
    info.compress_type = zipfile.ZIP_DEFLATED
    path = archive_of(tmp_path / "a.zip", [(info, bytes(50 << 20))])
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 50 << 20), struct.pack("<I", 100)))
    assert reasons(prepare(store, path)) == {"a.jpg": "unreadable"}


def overlapping(path: Path) -> Path:
    """Two names in the directory for one and the same member."""
    archive_of(path, [("a.jpg", bytes(1000)), ("b.jpg", bytes(1000))])
    data = bytearray(path.read_bytes())
    second = data.rfind(b"PK\x01\x02")
    data[second + 42 : second + 46] = bytes(4)
    path.write_bytes(data)
    return path


def headless(path: Path) -> Path:
    archive_of(path, [("a.jpg", bytes(1000))])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"PK\x01\x02", b"PK\x09\x09"))
    return path


def cut_short(path: Path) -> Path:
    archive_of(path, [("a.jpg", bytes(1000))])
    path.write_bytes(path.read_bytes()[:-30])
    return path


@pytest.mark.parametrize(
    ("make", "line"),
    [(overlapping, "overlap"), (headless, "cannot be read"), (cut_short, "neither a directory nor a complete zip")],
)
def test_a_corrupt_archive_directory_is_one_line(tmp_path: Path, make: Callable[[Path], Path], line: str) -> None:
    with pytest.raises(UsageError, match=line) as caught:
        prepare(tmp_path / "store", make(tmp_path / "a.zip"))
    assert "\n" not in str(caught.value)


def test_annotations_in_an_archive_have_a_limit_too(tmp_path: Path, photos: Any) -> None:
    path = archive_of(tmp_path / "annotations.zip", [("captions_train2017.json", b"{}" + bytes(1000))])
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 1002), struct.pack("<I", (4 << 30) - 2)))
    with pytest.raises(CaptError, match="larger than the limit"):
        prepare(tmp_path / "store", photos(1), dataset_type="coco", annotations=[str(path)])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "[" * 100_000, "\ufeff{}", "NaN", "9" * 10_000])
def test_hostile_json_is_one_line(tmp_path: Path, photos: Any, text: str) -> None:
    path = tmp_path / "captions_train2017.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CaptError, match="captions_train2017"):
        prepare(tmp_path / "store", photos(1), dataset_type="coco", annotations=[str(path)])


def test_decompression_bombs_use_little_memory(tmp_path: Path) -> None:
    images = tmp_path / "images.zip"
    squeezed = zipfile.ZipInfo("b.jpg")
    squeezed.compress_type = zipfile.ZIP_BZIP2
    archive_of(images, [(squeezed, bytes(60 << 20)), ("c.png", png_of(30_000, 30_000))], compression=8)
    code = f"""
import resource
from features.images.resize import Resizer
from features.images.decode import decode
from features.inputs import list_files
from schemas.errors import RecordError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for found in list_files({str(images)!r}):
    try:
        decode(found.reference.read(), Resizer(8, 8))
    except RecordError as error:
        print(error.reason)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == ["unsupported compression", "too large", "True"]


# === Stores ===


def test_a_store_of_a_newer_version_is_one_line(store: Path, tmp_path: Path, photos: Any) -> None:
    prepare(store, photos(1))
    (store / "capt-store.json").write_text('{"format":"capt-store","version":2}')
    with pytest.raises(StoreError, match="version 2"):
        prepare(store, photos(1))


MARKERS = ['{"version": Infinity, "format": "capt-store"}', "[" * 100_000, "[]", "7", '{"format":"capt-store"}']


@pytest.mark.parametrize("text", MARKERS)
def test_a_marker_changed_by_hand_is_one_line(tmp_path: Path, photos: Any, text: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "capt-store.json").write_text(text)
    with pytest.raises(StoreError, match="store"):
        prepare(tmp_path / "store", photos(1))


def test_a_corrupt_hash_cache_is_replaced(store: Path, tmp_path: Path, photos: Any) -> None:
    images = photos(2)
    prepare(store, images)
    for junk in (b"no database", bytes(5000)):
        (store / "cache" / "stat.sqlite").write_bytes(junk)
        assert prepare(store, images)["cached"] == 2
        (store / "cache" / "stat.sqlite").write_bytes(junk)
        assert prepare(store, images, dry_run=True)["hits"] == 2


# === Fuzz ===


def archive_bytes() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.jpg", b"some bytes" * 20)
        archive.writestr(*link_to("a"))
    return file.getvalue()


ARCHIVE = archive_bytes()
CHANGES = st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6)


def changed(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    out = bytearray(data)
    for place, new in changes:
        out[place % len(data) : place % len(data) + len(new)] = new
    return bytes(out)


def walk_and_read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        found = list(list_files(str(path)))
    except UsageError:
        return
    for one in found:
        with contextlib.suppress(RecordError):
            assert len(one.reference.read(1000)) <= 1000


def read_manifest(root: Path, data: bytes) -> None:
    digest = next((root / "manifests").iterdir()).stem
    (root / "manifests" / f"{digest}.json").write_bytes(data)
    with contextlib.suppress(StoreError):
        assert CommitLog(root).manifest(digest).digest == digest


def read_entry(root: Path, data: bytes) -> None:
    (root / "log" / "00000001.json").write_bytes(data)
    with contextlib.suppress(CorruptFileError):
        assert CommitLog(root).entry(1)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with one commit."""
    from schemas.manifests import DatasetMetadata, FileEntry, Manifest

    root = tmp_path_factory.mktemp("table")
    entry = FileEntry(path="c/catalog.parquet", bytes=1, sha256="ab" * 32)
    facts = DatasetMetadata(source="folder", images={"train": 1})
    CommitLog(root).append(Manifest(table="folder", files={"catalog": entry}, facts=facts))
    return root


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["version", "table", "facts", "files", "x"]), inner)
    ),
)


def fuzz(examples: int, table: Path, archive: Path) -> None:
    manifest = next((table / "manifests").iterdir()).read_bytes()

    @given(CHANGES)
    @settings(max_examples=examples, deadline=None, database=None)
    def archives(changes: list[tuple[int, bytes]]) -> None:
        walk_and_read(archive, changed(ARCHIVE, changes))

    @given(CHANGES)
    @settings(max_examples=examples, deadline=None, database=None)
    def manifests(changes: list[tuple[int, bytes]]) -> None:
        read_manifest(table, changed(manifest, changes))

    @given(JSON)
    @settings(max_examples=examples, deadline=None, database=None)
    def values(value: Any) -> None:
        read_manifest(table, json.dumps(value).encode())
        read_entry(table, json.dumps({"manifest": value}).encode())

    @given(st.binary(max_size=300))
    @settings(max_examples=examples, deadline=None, database=None)
    def noise(data: bytes) -> None:
        read_manifest(table, data)
        read_entry(table, data)
        walk_and_read(archive, data + ARCHIVE)

    original = {path: path.read_bytes() for path in table.rglob("*") if path.is_file()}
    try:
        for run in (archives, manifests, values, noise):
            run()
        read_manifest(table, b"[" * 100_000)
        read_entry(table, b"[" * 100_000)
    finally:
        for path, data in original.items():
            path.write_bytes(data)


def test_randomly_changed_archives_and_manifests_are_read_or_refused(table: Path, tmp_path: Path) -> None:
    fuzz(60, table, tmp_path / "a.zip")


@pytest.mark.slow
def test_archives_and_manifests_changed_many_times_are_read_or_refused(table: Path, tmp_path: Path) -> None:
    fuzz(5000, table, tmp_path / "a.zip")
