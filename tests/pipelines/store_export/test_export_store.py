"""`capt store export` writes the rows that a reader of the store sees, once, in files that can be resumed."""

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capt
from features.io.atomic_files import describe_file
from features.io.tar_writer import TarWriter
from features.store import Store, create_store
from features.store.commit_log import CommitLog
from features.store.storage_dtypes import decode
from pipelines.store_export.formats import FORMATS
from pipelines.store_export.output_directory import hold_directory
from pipelines.store_export.rows import Layout
from pipelines.store_export.webdataset_files import encode_key
from schemas.choices import ExportFormat
from schemas.errors import CaptError, StoreError, UsageError
from schemas.tables import FILE_NAMES
from tests.commands import CommandServer
from tests.features.store import stores
from tests.workflows import show_stores

NAMES = get_args(ExportFormat)
IDS = ("a.b/1.jpg", "a/2", "3", "é 4", "5", "6", "7")
MISSING = "5"


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Seven images in two splits; one without features, one with two captions, one without captions."""
    root = tmp_path_factory.mktemp("pets")
    store = create_store(root / "S")
    photos = []
    for number, image_id in enumerate(IDS):
        captions = {0: ("a dog", "a dog runs"), 1: ()}.get(number, ("a dog sleeps",))
        one = show_stores.photo(root / "images", number, "val" if number in (1, 5) else "train", captions)
        object.__setattr__(one, "image_id", image_id)
        photos.append(one)
    show_stores.add_dataset(store, photos)
    show_stores.add_features(store, [one.key for one in photos if one.image_id != MISSING])
    show_stores.add_captions(store, photos)
    return store


def export(store: Store, output: Path, file_format: str, **options: Any) -> dict[str, Any]:
    return capt.store_export(store=str(store.path), output=str(output), format=file_format, **options)


def read_rows(store: Store, split: str) -> list[tuple[str, Any, list[str], list[list[int]]]]:
    """ID, features, captions and tokens of the images of a split that have features, as the store's readers give."""
    (dataset,), (table,), (texts,) = store.datasets(), store.feature_tables(), store.caption_tables()
    found = []
    for row in dataset.catalog().to_pylist():
        if row["split"] == split and row["image_id"] != MISSING:
            own = [one for one in texts.captions().to_pylist() if one["image_id"] == row["image_id"]]
            own.sort(key=lambda one: one["caption_id"])
            captions, tokens = [one["caption"] for one in own], [one["tokens"] for one in own]
            found.append((row["image_id"], table.get(row["key"]), captions, tokens))
    return found


def read_export(output: Path, file_format: str, split: str) -> list[tuple[str, Any, list[str], list[list[int]]]]:
    """The same, from the files of an export."""
    rows: list[dict[str, Any]] = []
    for path in sorted(output.glob(f"**/{split}-*")):
        if path.suffix == ".tar":
            samples: dict[str, dict[str, Any]] = {}
            with tarfile.open(path) as archive:
                for member in archive:
                    key, _, field = member.name.rpartition(".")
                    file = archive.extractfile(member)
                    assert file is not None
                    samples.setdefault(key, {})[field] = file.read()
            for key, sample in samples.items():
                row = json.loads(sample["json"])
                assert unquote(key) == row["image_id"]
                assert sample.get("txt", b"").decode() == (row["captions"][0] if len(row["captions"]) == 1 else "")
                rows.append({**row, "features": np.load(io.BytesIO(sample["npy"]))})
        elif path.suffix == ".arrow":
            table = pa.ipc.open_file(path).read_all()
            features = table["features"].combine_chunks().to_numpy_ndarray()
            listed = table.drop_columns("features").to_pylist()
            rows += [{**row, "features": features[number]} for number, row in enumerate(listed)]
        elif path.suffix == ".npy":
            array = np.load(path, mmap_mode="r")
            index = pq.read_table(path.with_suffix(".parquet")).to_pylist()
            assert len(array) == len(index)
            rows += [{**row, "features": array[row["row"]]} for row in index]
        elif file_format == "huggingface":
            rows += pq.read_table(path).to_pylist()
    shaped = [np.array(row["features"], np.float16) for row in rows]
    return [(row["image_id"], one, row["captions"], row["tokens"]) for row, one in zip(rows, shaped, strict=True)]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert [(one[0], *one[2:]) for one in found] == [(one[0], *one[2:]) for one in expected]
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("file_format", NAMES)
def test_an_export_has_the_rows_of_the_readers(pets: Store, tmp_path: Path, file_format: str) -> None:
    result = export(pets, tmp_path / "out", file_format, shard_size=3)
    assert result["images"] == {"train": 4, "val": 2}
    assert (result["without_features"], result["captions"], result["without_captions"]) == (1, 6, 1)
    assert result["captions_without_features"] == 1
    assert (result["dtype"], result["shape"]) == ("float16", list(show_stores.SHAPE))
    for split in ("train", "val"):
        assert_same(read_export(tmp_path / "out", file_format, split), read_rows(pets, split))
    words = (tmp_path / "out" / "vocabulary.txt").read_text().split("\n")
    assert words[:-1] == pets.caption_tables()[0].vocabulary()


@pytest.mark.parametrize("file_format", NAMES)
def test_an_export_is_the_same_bytes_again_and_in_parts(
    pets: Store, tmp_path: Path, file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first file has two blocks; the second is written after the rows of the first were skipped.
    monkeypatch.setattr("pipelines.store_export.rows._MAX_BLOCK_ROWS", 2)
    first = export(pets, tmp_path / "one", file_format, shard_size=3)
    export(pets, tmp_path / "two", file_format, shard_size=3)
    names = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert len(names) == first["files"] + 2
    # A file that is missing, and one that was changed, are written again; the others are kept.
    entries = sorted(json.loads((tmp_path / "two" / "export.json").read_text())["files"])
    (tmp_path / "two" / next(name for name in entries if "00001-of-00002" in name)).unlink()
    (tmp_path / "two" / entries[-1]).write_bytes(b"another")
    again = export(pets, tmp_path / "two", file_format, shard_size=3)
    assert again["written"] < again["files"] == first["files"]
    for name in names - {Path(".export.lock")}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert export(pets, tmp_path / "two", file_format, shard_size=3)["written"] == 0
    for split in ("train", "val"):
        assert_same(read_export(tmp_path / "two", file_format, split), read_rows(pets, split))


@pytest.mark.parametrize(("dtype", "exported"), [("bfloat16", "float32"), ("int8", "float32"), ("float32", "float32")])
def test_features_have_the_values_of_the_reader(tmp_path: Path, dtype: Any, exported: str) -> None:
    store = stores.new_store(tmp_path / "S")
    table_config = stores.feature_config(dtype=dtype)
    stores.add_features(store, table_config, range(5))
    stores.add_dataset(store, "d", range(5))
    assert export(store, tmp_path / "out", "npy", without_captions=True)["dtype"] == exported
    array = np.load(tmp_path / "out" / "train-00000-of-00001.npy")
    expected = np.stack([decode(stores.values_of(number, dtype)) for number in range(5)]).astype(np.float32)
    assert array.dtype == np.float32
    assert np.array_equal(array, expected)
    assert not (tmp_path / "out" / "vocabulary.txt").exists()


def test_labels_are_exported(tmp_path: Path) -> None:
    store = create_store(tmp_path / "S")
    photos = [show_stores.photo(tmp_path / "images", number) for number in range(2)]
    show_stores.add_dataset(store, photos, labels={"0": "zwölf"})
    show_stores.add_features(store, [one.key for one in photos])
    export(store, tmp_path / "out", "npy")
    index = pq.read_table(tmp_path / "out" / "train-00000-of-00001.parquet")
    assert index["label"].to_pylist() == ["zwölf", None]
    export(store, tmp_path / "tar", "webdataset")
    with tarfile.open(tmp_path / "tar" / "train-00000-of-00001.tar") as archive:
        assert [one for one in archive.getnames() if one.endswith(".txt")] == ["0.txt"]


def test_captions_of_other_image_files_are_refused(pets: Store, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(pets.path, tmp_path / "S")))

    def add_file_names(root: Path, file_name: str) -> None:
        names = pa.Table.from_pydict({"image_id": ["3"], "file_name": [file_name]}, schema=FILE_NAMES.arrow_schema())
        path = root / f"{file_name}.parquet"
        pq.write_table(names, path)
        live = CommitLog(root).live()[-1]
        files = {**live.files, FILE_NAMES.name: describe_file(path, root)}
        CommitLog(root).append(live.model_copy(update={"replaces": (live.digest,), "files": files}))

    add_file_names(store.datasets()[0].root, "3.jpg")
    add_file_names(store.caption_tables()[0].root, "3.jpg")
    assert export(store, tmp_path / "out", "npy")["captions"] == 6
    add_file_names(store.caption_tables()[0].root, "4.jpg")
    with pytest.raises(StoreError):
        export(store, tmp_path / "other", "npy")


def test_a_format_checks_the_number_of_dimensions() -> None:
    def layout(dimensions: int) -> Layout:
        return Layout((2,) * dimensions, np.dtype(np.float32), pa.schema([]))

    for dimensions in (0, 6):
        with pytest.raises(UsageError):
            FORMATS["huggingface"].check(layout(dimensions))
        FORMATS["npy"].check(layout(dimensions))
    FORMATS["huggingface"].check(layout(5))


def test_keys_restore_image_ids() -> None:
    ids = ["a", "a/b", "a.b", "a.b/c.d", "/a", "a/", "a//b", "%2E", "..", "a b", "é", "a\n", "a\\b", ".", "x" * 300]
    keys = [encode_key(one) for one in ids]
    assert [unquote(key) for key in keys] == ids
    assert len({*keys}) == len(ids)
    assert not any("." in key or key.endswith("/") or not key for key in keys)


def test_an_export_of_one_split_has_no_other(pets: Store, tmp_path: Path) -> None:
    assert export(pets, tmp_path / "out", "arrow", split="val")["images"] == {"val": 2}
    assert [path.name for path in sorted(tmp_path.glob("out/*.arrow"))] == ["val-00000-of-00001.arrow"]


def test_an_impossible_export_is_refused_and_writes_nothing(pets: Store, tmp_path: Path) -> None:
    for error, options in (
        (StoreError, {"dataset": "none"}),
        (StoreError, {"feature_table": "ffff"}),
        (StoreError, {"caption_table": "ffff"}),
        (CaptError, {"split": "test"}),
        (UsageError, {"split": "other"}),
        (UsageError, {"caption_table": "ff", "without_captions": True}),
        (UsageError, {"shard_size": 0}),
    ):
        with pytest.raises(error):
            export(pets, tmp_path / "out", "npy", **options)
    with pytest.raises(UsageError):
        export(pets, tmp_path / "out", "csv")
    assert not (tmp_path / "out").exists()


def test_a_directory_with_other_contents_is_refused(pets: Store, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    export(pets, tmp_path / "out", "npy")
    for output, options in (
        (tmp_path / "other", {}),
        (tmp_path / "other" / "notes.txt", {}),
        (pets.path / "export", {}),
        (tmp_path / "out", {"split": "val"}),
        (tmp_path / "out", {"without_captions": True}),
    ):
        with pytest.raises(UsageError):
            export(pets, output, "npy", **options)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]
    assert not (pets.path / "export").exists()


def test_an_export_of_a_store_that_has_changed_is_refused(pets: Store, tmp_path: Path) -> None:
    store = Store(Path(shutil.copytree(pets.path, tmp_path / "S")))
    export(store, tmp_path / "out", "npy")
    row = store.datasets()[0].get(MISSING)
    show_stores.add_features(store, [row["key"]])
    with pytest.raises(UsageError):
        export(store, tmp_path / "out", "npy")


def test_an_export_resumes_if_the_exported_values_are_the_same(tmp_path: Path) -> None:
    def build(name: str, *, numerics: str = "cpu-avx2", label: str = "x", texts: tuple[str, str] = ("a", "b")) -> Store:
        store = create_store(tmp_path / name / "S")
        photos = [show_stores.photo(tmp_path / name, number, captions=(text,)) for number, text in enumerate(texts)]
        show_stores.add_dataset(store, photos, labels={"0": label})
        show_stores.add_features(store, [photos[0].key], numerics=numerics)
        show_stores.add_captions(store, photos)
        return store

    export(build("first"), tmp_path / "out", "npy")
    # Another directory of images, and another caption of the image without features, change no exported value.
    assert export(build("moved", texts=("a", "c")), tmp_path / "out", "npy")["written"] == 0
    for name, change in (("numerics", "cpu-avx512"), ("label", "y"), ("texts", ("c", "b"))):
        with pytest.raises(UsageError):
            export(build(name, **{name: change}), tmp_path / "out", "npy")  # type: ignore[arg-type]


def test_the_record_is_the_same_for_every_layout_of_the_features(tmp_path: Path) -> None:
    records = []
    for number in (1, 4):
        store = stores.new_store(tmp_path / f"S{len(records)}")
        stores.add_features(store, stores.feature_config(), range(8), shards=number)
        stores.add_dataset(store, "d", range(8))
        output = tmp_path / f"out{len(records)}"
        export(store, output, "npy")
        records.append((output / "export.json").read_bytes())
    assert records[0] == records[1]


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_the_record_is_written_at_intervals_and_at_the_end(tmp_path: Path, is_interrupted: bool) -> None:
    outcome = pytest.raises(KeyboardInterrupt) if is_interrupted else contextlib.nullcontext()
    with outcome, hold_directory(str(tmp_path / "out"), tmp_path / "S", {}) as directory:
        for name in ("a", "b"):
            directory.locate(name).write_text(name)
            directory.add([name])
        assert json.loads((tmp_path / "out" / "export.json").read_text())["files"] == {}
        if is_interrupted:
            raise KeyboardInterrupt
    assert sorted(json.loads((tmp_path / "out" / "export.json").read_text())["files"]) == ["a", "b"]


def test_small_features_have_fewer_images_per_tar_than_per_table() -> None:
    layout = Layout((2,), np.dtype(np.float32), pa.schema([]))
    assert FORMATS["arrow"].choose_shard_size(layout, 1) == (256 << 20) // 8
    assert FORMATS["webdataset"].choose_shard_size(layout, 1) == (256 << 20) // (8 + 6 * 512)


def test_a_tar_writer_keeps_no_members(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"b")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        writer = TarWriter(archive)
        writer.add_bytes("a", b"a")
        writer.add_file("b", tmp_path / "b", 1)
        assert archive.getmembers() == []
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert archive.getnames() == ["a", "b"]


@pytest.mark.slow
def test_a_killed_export_resumes(tmp_path: Path, commands: CommandServer) -> None:
    store = stores.new_store(tmp_path / "S")
    stores.add_features(store, stores.feature_config(), range(3000))
    stores.add_dataset(store, "d", range(3000))
    given = ["store", "export", str(store.path), "--format", "webdataset", "--shard-size", "10", "--output"]
    process = commands.start([*given, str(tmp_path / "killed")])
    while not list((tmp_path / "killed").glob("*-00020-of-*.tar")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = {path.name for path in (tmp_path / "killed").glob("*.tar")}
    assert 20 < len(before) < 300
    assert commands.start([*given, str(tmp_path / "killed")]).wait() == 0
    assert commands.start([*given, str(tmp_path / "whole")]).wait() == 0
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).glob("[!.]*")}
        for name in ("killed", "whole")
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 301
