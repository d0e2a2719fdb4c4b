"""Through the commands: annotation files of every kind are read right, or fail record by record, or with one line."""

import bz2
import csv
import gzip
import importlib
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import capt
from features.store import open_store
from pipelines.datasets import DATASET_READERS
from schemas.errors import CaptError, ExitCode, UsageError
from tests.conftest import noise_image

ERRORS = (
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
    KeyError,
    AssertionError,
    UnicodeError,
    OSError,
    TypeError,
    ZeroDivisionError,
    StopIteration,
)
PIXELS = {"extractor": "pixels", "height": 8, "width": 8}

# === One small dataset in every format of captions ===

NAMES = ("a.jpg", "b.jpg", "c.jpg")
URLS = {name: f"http://example.com/{name}" for name in NAMES}


def in_coco(texts: dict[str, Any]) -> tuple[str, str]:
    images = [{"id": number, "file_name": name} for number, name in enumerate(texts)]
    annotations = [{"id": number, "image_id": number, "caption": text} for number, text in enumerate(texts.values())]
    return "captions_train2017.json", json.dumps({"images": images, "annotations": annotations})


def in_karpathy(texts: dict[str, Any]) -> tuple[str, str]:
    images = [
        {"filename": name, "imgid": number, "split": "train", "sentences": [{"raw": text, "sentid": number}]}
        for number, (name, text) in enumerate(texts.items())
    ]
    return "dataset_some.json", json.dumps({"images": images})


def in_flickr8k(texts: dict[str, Any]) -> tuple[str, str]:
    return "Flickr8k.token.txt", "".join(f"{name}#0\t{text}\n" for name, text in texts.items())


def in_flickr30k(texts: dict[str, Any]) -> tuple[str, str]:
    rows = "".join(f"{name}| 0| {text}\n" for name, text in texts.items())
    return "results.csv", f"image_name| comment_number| comment\n{rows}"


def in_conceptual(texts: dict[str, Any]) -> tuple[str, str]:
    return "Train_GCC-training.tsv", "".join(f"{text}\t{URLS[name]}\n" for name, text in texts.items())


def in_csv(texts: dict[str, Any]) -> tuple[str, str]:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("image", "caption"), *texts.items()])
    return "captions.csv", out.getvalue()


def in_tsv(texts: dict[str, Any]) -> tuple[str, str]:
    return "captions.tsv", "".join(f"{name}\t{text}\n" for name, text in [("image", "caption"), *texts.items()])


def in_jsonl(texts: dict[str, Any]) -> tuple[str, str]:
    lines = (json.dumps({"image": name, "caption": text}) for name, text in texts.items())
    return "captions.jsonl", "".join(f"{line}\n" for line in lines)


FORMATS: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {
    "coco": in_coco,
    "karpathy": in_karpathy,
    "flickr8k": in_flickr8k,
    "flickr30k": in_flickr30k,
    "conceptual": in_conceptual,
    "csv": in_csv,
    "tsv": in_tsv,
    "jsonl": in_jsonl,
}
LINES = [kind for kind in FORMATS if kind not in ("coco", "karpathy")]
SOUND = {"a.jpg": "A dog runs .", "b.jpg": "A café .", "c.jpg": "A bird ."}


def kind_of(name: str) -> str:
    return "csv" if name == "tsv" else name


def entries(kind: str, *annotations: Path) -> tuple[list[str], list[str]]:
    """The captions that a source reads, and the reasons of those that it cannot read."""
    read = list(DATASET_READERS[kind_of(kind)]([str(path) for path in annotations]).read_captions())
    captions = [entry.caption for entry in read if hasattr(entry, "caption")]
    return captions, [entry.reason for entry in read if hasattr(entry, "reason")]


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def prepare_captions(root: Path, kind: str, *annotations: Path, **options: Any) -> dict[str, Any]:
    """The summary of a dry run, which reads the annotations as a run does; with `dry_run=False` of a run."""
    named = {
        "store": str(root / "S"),
        "dataset_type": kind_of(kind),
        "annotations": [str(path) for path in annotations],
    }
    defaults = {"split_ratios": "1,0,0", "max_failures": "100%", "dry_run": True}
    return capt.prepare_captions(**{**named, **defaults, **options})  # type: ignore[no-any-return]


def prepare_features(root: Path, *images: Path, **options: Any) -> dict[str, Any]:
    defaults = {"dataset_type": "folder", "max_failures": "100%", **PIXELS}
    return capt.prepare_features(  # type: ignore[no-any-return]
        store=str(root / "S"), images=[str(image) for image in images], **{**defaults, **options}
    )


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    """What became of each record: its reason where it failed, else its status."""
    return {row["record"]: row["reason"] or row["status"] for row in pq.read_table(result["report"]).to_pylist()}


def adds_up(result: dict[str, Any]) -> bool:
    return bool(sum(result[status] for status in ("ok", "cached", "duplicate", "failed")) == result["input"])


# === How text is written ===


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_lines_end_with_lf_crlf_or_cr_in_every_format(tmp_path: Path, kind: str, end: str) -> None:
    name, text = FORMATS[kind](SOUND)
    for data in (text, text.removesuffix("\n")):
        path = put(tmp_path / name, data.replace("\n", end).encode())
        assert entries(kind, path) == (list(SOUND.values()), [])


@pytest.mark.parametrize("kind", LINES)
def test_cr_within_a_line_never_shortens_or_joins_captions(tmp_path: Path, kind: str) -> None:
    name, text = FORMATS[kind](SOUND)
    path = put(tmp_path / name, text.replace("A dog runs", "A dog\rruns").encode())
    captions, failed = entries(kind, path)
    assert captions[-2:] == ["A café .", "A bird ."]
    # Quoted, CR is part of a CSV field; else each part of the line is a failed record.
    assert (captions[:-2], failed) in [([], ["mixed line ends"] * 2), (["A dog\rruns ."], [])]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_byte_order_mark_is_read_in_every_format(tmp_path: Path, kind: str, encoding: str) -> None:
    name, text = FORMATS[kind](SOUND)
    assert entries(kind, put(tmp_path / name, text.encode(encoding))) == (list(SOUND.values()), [])


@pytest.mark.parametrize("kind", FORMATS)
def test_gzip_is_read_in_every_format_in_every_location(tmp_path: Path, kind: str) -> None:
    name, text = FORMATS[kind](SOUND)
    data = gzip.compress(text.encode())
    plain = put(tmp_path / "plain" / name, data)
    named = put(tmp_path / "named" / f"{name}.gz", data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(f"texts/{name}.gz", data)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(named, f"texts/{name}.gz")
    for place in (plain, named, tmp_path / "named", tmp_path / "a.zip", tmp_path / "a.tar"):
        assert entries(kind, place) == (list(SOUND.values()), [])


def test_a_tsv_and_a_split_are_recognized_by_the_name_without_gz(tmp_path: Path) -> None:
    name, text = in_coco(SOUND)
    path = put(tmp_path / f"{name}.gz", gzip.compress(text.encode()))
    assert {image.split for image in DATASET_READERS["coco"]([str(path)]).read_images()} == {"train"}


def test_compressed_split_lists_beside_the_token_file_are_found(tmp_path: Path) -> None:
    path = put(tmp_path / "Flickr8k.token.txt.gz", gzip.compress(in_flickr8k(SOUND)[1].encode()))
    put(tmp_path / "Flickr_8k.trainImages.txt.gz", gzip.compress(b"a.jpg\r"))
    put(tmp_path / "Flickr_8k.devImages.txt", b"b.jpg\rc.jpg")
    images = DATASET_READERS["flickr8k"]([str(path)]).read_images()
    assert [image.split for image in images] == ["train", "val", "val"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "damaged",
    [
        lambda data: gzip.compress(data)[:-9],
        lambda data: gzip.compress(data)[:15],
        lambda data: gzip.compress(data)[:-8] + bytes(8),
        lambda data: gzip.compress(data) + data,
        bz2.compress,
        lambda data: data.decode().encode("utf-16")[:-1],
    ],
)
def test_a_file_that_cannot_be_unpacked_is_one_line(
    tmp_path: Path, kind: str, damaged: Callable[[bytes], bytes]
) -> None:
    name, text = FORMATS[kind](SOUND)
    path = put(tmp_path / name, damaged(text.encode()))
    with pytest.raises(CaptError) as caught:
        prepare_captions(tmp_path, kind, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_bomb_is_refused_by_its_unpacked_bytes(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.datasets.annotation_files.MAX_BYTES", 100_000)
    name, text = FORMATS[kind](SOUND)
    path = put(tmp_path / name, gzip.compress(text.encode() + b" " * 1_000_000))
    assert path.stat().st_size < 10_000
    with pytest.raises(CaptError, match="limit"):
        prepare_captions(tmp_path, kind, path)


def test_a_directory_with_a_file_both_plain_and_compressed_is_wrong_usage(tmp_path: Path) -> None:
    name, text = in_csv(SOUND)
    put(tmp_path / "texts" / name, text.encode())
    put(tmp_path / "texts" / f"{name}.gz", gzip.compress(text.encode()))
    with pytest.raises(UsageError):
        prepare_captions(tmp_path, "csv", tmp_path / "texts")


# === Captions and ids that are not text ===

NO_TEXT = (None, float("nan"), 7, 1.5, True, ["a", "cat"], {"en": "a dog"})


@pytest.mark.parametrize("kind", ["coco", "karpathy", "jsonl"])
def test_a_caption_that_is_not_text_is_a_failed_row_and_never_a_word(tmp_path: Path, kind: str) -> None:
    texts = {"a.jpg": "null", "b.jpg": "NaN", **{f"{number}.jpg": text for number, text in enumerate(NO_TEXT)}}
    name, data = FORMATS[kind](texts)
    result = prepare_captions(tmp_path, kind, put(tmp_path / name, data.encode()), dry_run=False)
    assert adds_up(result)
    # In JSON lines, null is no caption, and a list of texts has one caption each.
    none, listed = ({"no caption": 1}, ["a", "cat"]) if kind == "jsonl" else ({}, [])
    assert result["reasons"] == {"caption is not text": len(NO_TEXT) - len(none) - bool(listed), **none}
    stored = open_store(tmp_path / "S").caption_table(result["fingerprint"]).captions()
    assert sorted(stored["caption"].to_pylist()) == sorted(["NaN", "null", *listed])


@pytest.mark.parametrize("tokens", [["tok", None], ["tok", 7], "tok", None])
def test_karpathys_tokens_are_text_too(tmp_path: Path, tokens: Any) -> None:
    sentences = [{"tokens": ["A", "dog"], "sentid": 0}, {"tokens": tokens, "sentid": 1}]
    image = {"filename": "a.jpg", "imgid": 0, "split": "train", "sentences": sentences}
    path = put(tmp_path / "dataset_x.json", json.dumps({"images": [image]}).encode())
    assert entries("karpathy", path) == (["A dog"], ["caption is not text"])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("text", "reason"), [("word " * 30_000, "too long"), ("a\0b", "NUL byte"), (" ", None)])
def test_captions_that_are_too_long_hold_nul_or_nothing_are_failed_rows(
    tmp_path: Path, kind: str, text: str, reason: str | None
) -> None:
    name, data = FORMATS[kind]({**SOUND, "c.jpg": text})
    result = prepare_captions(tmp_path, kind, put(tmp_path / name, data.encode()))
    assert (result["input"], result["ok"], result["failed"]) == (3, 2, 1)
    assert reason is None or result["reasons"] == {reason: 1}


@pytest.mark.parametrize("kind", ["coco", "karpathy"])
def test_images_without_a_readable_id_or_name_are_failed_rows(tmp_path: Path, kind: str) -> None:
    wrong = (None, float("nan"), True, [1], {}, " ", "a\0")
    names = ["a.jpg", *(f"{number}.jpg" for number in range(2 * len(wrong)))]
    name, text = FORMATS[kind](dict.fromkeys(names, "A dog"))
    data = json.loads(text)
    keys = ("id", "file_name") if kind == "coco" else ("imgid", "filename")
    for number in range(2 * len(wrong)):
        data["images"][number + 1][keys[number % 2]] = wrong[number // 2]
    path = put(tmp_path / name, json.dumps(data).encode())
    (tmp_path / "images").mkdir()
    for number, image in enumerate(names):
        noise_image(number).save(tmp_path / "images" / image)
    result = prepare_features(tmp_path, tmp_path / "images", dataset_type=kind, annotations=[str(path)])
    assert (result["input"], result["ok"], result["failed"]) == (len(names), 1, 2 * len(wrong))
    assert outcomes(result)["0"] == "ok"
    result = prepare_captions(tmp_path, kind, path)
    assert (result["input"], result["ok"], result["failed"]) == (len(names), 1, 2 * len(wrong))


# === Any exception while a record is read ===

# The innermost call while a record of each kind is read, which is given what it reads; "b.jpg" or "A café" is in one.
INNERMOST = {
    "coco": "pipelines.datasets.coco.read_caption",
    "karpathy": "pipelines.datasets.karpathy.read_caption",
    "flickr8k": "pipelines.datasets.flickr.CaptionEntry",
    "flickr30k": "pipelines.datasets.flickr.CaptionEntry",
    "conceptual": "pipelines.datasets.conceptual._read_row",
    "csv": "pipelines.datasets.caption_rows.read_caption",
    "jsonl": "pipelines.datasets.caption_rows.read_caption",
}


@pytest.mark.parametrize("kind", INNERMOST)
@pytest.mark.parametrize("error", ERRORS)
def test_any_exception_while_a_record_is_read_fails_that_record_alone(
    tmp_path: Path, kind: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, text = FORMATS[kind](SOUND)
    path = put(tmp_path / name, text.encode())
    monkeypatch.setattr(INNERMOST[kind], raising_on_one(error, INNERMOST[kind]))
    captions, failed = entries(kind, path)
    assert captions == ["A dog runs .", "A bird ."]
    assert failed == [f"unexpected: {error.__name__}"]


def raising_on_one(error: type[Exception], target: str) -> Callable[..., Any]:
    """A function in place of the target that raises where the record of b.jpg is read."""
    owner, _, name = target.rpartition(".")
    original = getattr(importlib.import_module(owner), name)

    def function(*values: Any, **named: Any) -> Any:
        if any("b.jpg" in str(value) or "A caf" in str(value) for value in (*values, *named.values())):
            raise error("hostile \ud800")
        return original(*values, **named)

    return function


@pytest.mark.parametrize("error", ERRORS)
def test_any_exception_while_a_file_of_iapr_is_read_fails_that_file_alone(
    tmp_path: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        text = f"<DOC><DESCRIPTION>a dog;</DESCRIPTION><IMAGE>images/{number}.jpg</IMAGE></DOC>"
        put(tmp_path / "texts" / f"{number}.eng", text.encode())
    from pipelines.datasets import iapr

    original = iapr._find_field

    def field(text: str, tag: str) -> str | None:
        if "1.jpg" in text:
            raise error("hostile")
        return original(text, tag)

    monkeypatch.setattr(iapr, "_find_field", field)
    assert entries("iapr", tmp_path / "texts") == (["a dog"] * 2, [f"unexpected: {error.__name__}"])


def test_a_corrupt_member_of_iaprs_archive_affects_only_itself(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(3):
            text = f"<DOC><DESCRIPTION>a dog;</DESCRIPTION><IMAGE>images/{number}.jpg</IMAGE></DOC>"
            archive.writestr(f"{number}.eng", text)
    data = (tmp_path / "a.zip").read_bytes()
    put(tmp_path / "a.zip", data.replace(b"images/1", b"imaXXX/1"))
    captions, failed = entries("iapr", tmp_path / "a.zip")
    assert (captions, failed) == (["a dog"] * 2, ["unreadable"])


@pytest.mark.parametrize(
    "line",
    [
        '{"image": "b.jpg", "caption": ' + "[" * 100_000,
        '{"image": "b.jpg", "caption": ' + "[" * 900 + "]" * 900 + "}",
        '{"image": "b.jpg", "caption": "x", "id": ' + "9" * 5000 + "}",
        '{"image": "b.jpg", "caption": "x", "id": 1e999}',
        '{"image": "b.jpg", "caption": "\\ud800"}',
        '{"image": {"a": 1}, "caption": "x"}',
        '{"image": "b.jpg", "caption": "x", "split": ["train"]}',
        '{"image": "b.jpg", "captions": {"a": 1}}',
        '{"image": "b.jpg"',
        "\ufffe",
        "Infinity",
        '"b.jpg"',
    ],
)
def test_a_hostile_line_of_json_affects_only_itself(tmp_path: Path, line: str) -> None:
    sound = ['{"image": "a.jpg", "caption": "A dog"}', '{"image": "c.jpg", "caption": "A bird"}']
    path = put(tmp_path / "a.jsonl", "\n".join([sound[0], line, sound[1]]).encode())
    result = prepare_captions(tmp_path, "jsonl", path)
    assert (result["input"], result["ok"], result["failed"]) == (3, 2, 1)
    assert entries("jsonl", path)[0][:1] == ["A dog"]


@pytest.mark.parametrize("kind", ["coco", "karpathy"])
def test_a_byte_or_number_that_json_cannot_have_affects_only_its_record(tmp_path: Path, kind: str) -> None:
    texts = {f"{number}.jpg": f"A dog {number}" for number in range(4)}
    name, text = FORMATS[kind](texts)
    data = text.replace("A dog 1", "A d\udcf6g 1").replace('id": 3', 'id": ' + "9" * 10_000)
    path = put(tmp_path / name, data.encode("utf-8", "surrogateescape"))
    result = prepare_captions(tmp_path, kind, path)
    assert (result["input"], result["ok"], result["failed"]) == (4, 2, 2)
    assert result["reasons"]["invalid text"] == 1


@pytest.mark.parametrize("kind", ["coco", "karpathy", "jsonl"])
def test_a_record_with_a_key_twice_fails_alone(tmp_path: Path, kind: str) -> None:
    texts = {f"{number}.jpg": f"A dog {number}" for number in range(4)}
    name, text = FORMATS[kind](texts)
    key = "raw" if kind == "karpathy" else "caption"
    doubled = text.replace('"A dog 1"', f'"A dog 1", "{key}": "A cat"')
    assert doubled != text
    result = prepare_captions(tmp_path, kind, put(tmp_path / name, doubled.encode()))
    assert (result["input"], result["ok"], result["failed"]) == (4, 3, 1)
    assert result["reasons"] == {"duplicate key": 1}


@pytest.mark.parametrize("kind", ["coco", "karpathy"])
def test_a_list_that_occurs_twice_is_one_line(tmp_path: Path, kind: str) -> None:
    name, text = FORMATS[kind]({"a.jpg": "A dog"})
    doubled = text.replace('"images"', '"images": [], "images"')
    with pytest.raises(CaptError) as caught:
        prepare_captions(tmp_path, kind, put(tmp_path / name, doubled.encode()))
    assert "\n" not in str(caught.value)


def test_a_file_of_iapr_that_describes_two_images_fails(tmp_path: Path) -> None:
    doc = "<DOC><IMAGE>images/00/{0}.jpg</IMAGE><DESCRIPTION>a dog {0}</DESCRIPTION></DOC>"
    put(tmp_path / "annotations_complete_eng/00/1.eng", doc.format(1).encode())
    put(tmp_path / "annotations_complete_eng/00/2.eng", (doc.format(2) + doc.format(3)).encode())
    result = prepare_captions(tmp_path, "iapr", tmp_path / "annotations_complete_eng")
    assert (result["input"], result["ok"], result["reasons"]) == (2, 1, {"several DOC": 1})


# === Images that a folder, an archive or a root holds ===


def images_of_all_names(directory: Path) -> dict[str, str]:
    """Files by name, and what is to become of them."""
    expected = {}
    for number, (name, form) in enumerate(
        [
            *(("a.jpg", "JPEG"), ("b.webp", "WEBP"), ("c.jfif", "JPEG"), ("d.pjpeg", "JPEG"), ("e.mpo", "JPEG")),
            *(("f", "JPEG"), ("g.jpg?w=500", "PNG"), ("data:x.jpg", "JPEG"), ("deep/h.unknown", "GIF")),
        ]
    ):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(number).save(directory / name, form)
        expected[name] = "ok"
    for name in ("readme.txt", "LICENSE", "deep/empty"):
        (directory / name).write_bytes(b"" if name.endswith("empty") else b"no image")
    (directory / "no.png").write_bytes(b"no image")
    return {**expected, "no.png": "unsupported"}


def test_a_folder_has_the_same_images_whatever_they_are_called_and_wherever_they_lie(tmp_path: Path) -> None:
    expected = images_of_all_names(tmp_path / "web")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed, tarfile.open(tmp_path / "a.tar", "w") as archive:
        for path in sorted(one for one in (tmp_path / "web").rglob("*") if one.is_file()):
            packed.write(path, path.relative_to(tmp_path / "web"))
            archive.add(path, path.relative_to(tmp_path / "web"))
    for number, root in enumerate((tmp_path / "web", tmp_path / "a.zip", tmp_path / "a.tar")):
        result = prepare_features(tmp_path / str(number), root)
        assert outcomes(result) == expected
        assert adds_up(result)


def test_images_that_no_annotation_names_are_counted_whatever_they_are_called(tmp_path: Path) -> None:
    images_of_all_names(tmp_path / "web")
    path = put(tmp_path / "a.csv", b"image,caption\na.jpg,A dog\nf,A cat\n")
    result = prepare_features(tmp_path, tmp_path / "web", dataset_type="csv", annotations=[str(path)])
    assert (result["input"], result["ok"], result["unannotated"]) == (2, 2, 8)


@pytest.mark.parametrize("plan", [False, True])
@pytest.mark.parametrize("make", ["empty", "hidden", "others", "zip", "tar"])
def test_a_root_without_an_image_is_an_error(tmp_path: Path, plan: bool, make: str) -> None:
    root = tmp_path / make
    root.mkdir()
    if make == "hidden":
        (root / ".a.jpg").write_bytes(b"x")
    if make == "others":
        (root / "a.txt").write_bytes(b"x")
    if make == "zip":
        root = tmp_path / "a.zip"
        zipfile.ZipFile(root, "w").close()
    if make == "tar":
        root = tmp_path / "a.tar"
        tarfile.open(root, "w").close()
    (tmp_path / "images").mkdir()
    noise_image(1).save(tmp_path / "images" / "a.jpg")
    annotations = put(tmp_path / "a.csv", b"image,caption\na.jpg,A dog\n")
    for roots, options in (
        ([root], {}),
        ([tmp_path / "images", root], {}),
        ([tmp_path / "images", root], {"dataset_type": "csv", "annotations": [str(annotations)]}),
    ):
        with pytest.raises(CaptError) as caught:
            prepare_features(tmp_path, *roots, dry_run=plan, **options)
        assert caught.value.exit_code is ExitCode.FAILED
        assert str(root) in str(caught.value)


def test_nothing_but_files_that_are_no_images_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "files" / "LICENSE", b"no image")
    with pytest.raises(CaptError, match="there are no images"):
        prepare_features(tmp_path, tmp_path / "files")


def test_annotations_that_list_no_image_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    noise_image(1).save(tmp_path / "images" / "a.jpg")
    path = put(tmp_path / "captions_train2017.json", b'{"images": [], "annotations": []}')
    with pytest.raises(CaptError, match="there are no images"):
        prepare_features(tmp_path, tmp_path / "images", dataset_type="coco", annotations=[str(path)])


def test_a_member_that_claims_any_size_is_a_failed_row(tmp_path: Path) -> None:
    photo = io.BytesIO()
    noise_image(1).save(photo, "JPEG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", photo.getvalue())
        info = zipfile.ZipInfo("b.jpg")
        with archive.open(info, "w", force_zip64=True) as member:
            member.write(photo.getvalue())
        info.file_size = (1 << 64) - 1
    result = prepare_features(tmp_path, tmp_path / "a.zip")
    assert outcomes(result) == {"a.jpg": "ok", "b.jpg": "too large"}


def test_captions_without_a_word_are_counted(tmp_path: Path) -> None:
    path = put(tmp_path / "c.csv", "image,caption\na.png,!!!\nb.png,a dog\nc.png,…\nd.png,😀\n".encode())
    result = prepare_captions(tmp_path, "csv", path, dry_run=False, standardize="alnum")
    assert (result["ok"], result["empty_captions"]) == (4, 3)
    again = prepare_captions(tmp_path, "csv", path, dry_run=False, standardize="alnum")
    assert (again["cached"], again["empty_captions"]) == (4, 3)
