"""Side shards have one file per sample of their shards, with its key, in its order, and the features of its image."""

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from features.inputs import FileReference
from features.store import Store, create_store
from pipelines.store_export.output_directory import ExportDirectory, ExportRecord
from schemas.errors import CaptError, UsageError
from tests.workflows import show_stores

FEATURES, MISSING = "features.npy", "features.missing"
# Names of members and their kinds: links, directories and meta members belong to no sample, hidden files do.
ODD_NAMES = [
    ("l.png", tarfile.SYMTYPE),
    ("h.png", tarfile.LNKTYPE),
    ("d.png", tarfile.DIRTYPE),
    (".h/k.png", tarfile.REGTYPE),
    ("x/._b.png", tarfile.REGTYPE),
    ("x.", tarfile.REGTYPE),
    ("__m__/k.png", tarfile.REGTYPE),
    ("__m.png__", tarfile.REGTYPE),
    ("__a__b.png", tarfile.REGTYPE),
    ("README", tarfile.REGTYPE),
    (".png", tarfile.REGTYPE),
    ("a.b/c.png", tarfile.REGTYPE),
    ("x\ny.png", tarfile.REGTYPE),
    ("x/a.png", tarfile.REGTYPE),
]


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def read_tar(path: Path) -> list[tuple[str, str, bytes]]:
    """Key, field and content of each file."""
    with tarfile.open(path) as archive:
        found = []
        for member in archive:
            key, _, field = member.name.partition(".")
            file = archive.extractfile(member)
            assert file is not None
            found.append((key, field, file.read()))
        return found


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, and a store `S` of their images: `d` failed, and `e` is newer than the features."""
    root = tmp_path_factory.mktemp("pets")
    images = {key: show_stores.picture(number) for number, key in enumerate("abcdef")}
    texts = dict.fromkeys(images, b"a dog")
    first = [(f"./x/{key}.{field}", data[key]) for key in "cab" for field, data in (("png", images), ("txt", texts))]
    write_tar(root / "shards" / "train" / "00000.tar", [*first, ("README", b"no sample")])
    second = [("x/d.png", images["d"]), ("x/e.mask.png", b"no image"), ("x/e.png", images["e"]), ("x/z.txt", b"new")]
    # Another image has the key f.
    write_tar(root / "shards" / "train" / "00001.tar", [*second, ("x/f.png", images["a"])])
    store = create_store(root / "S")
    photos = [
        show_stores.Photo(f"x/{key}", data, FileReference("/old/place.tar", f"x/{key}.png@512"), "train")
        for key, data in images.items()
    ]
    show_stores.add_dataset(store, photos)
    keys = {one.image_id: one.key for one in photos}
    failures = {keys["x/d"]: ("decode", "truncated", "x")}
    show_stores.add_features(store, [keys[one] for one in keys if one[-1] in "abcf"], failures=failures)
    show_stores.add_captions(store, [show_stores.photo(root / "others", 1, captions=("a dog",))])
    return root


def export(root: Path, output: Path, **options: Any) -> dict[str, Any]:
    given = {"format": "webdataset", "aligned_with": [str(root / "shards")], **options}
    return capt.store_export(store=str(root / "S"), output=str(output), **given)


def test_a_side_shard_has_the_samples_of_its_shard_in_their_order(pets: Path, tmp_path: Path) -> None:
    result = export(pets, tmp_path / "side")
    first = read_tar(tmp_path / "side" / "train" / "00000.tar")
    # A key is spelled as in the shard.
    with tarfile.open(tmp_path / "side" / "train" / "00000.tar") as archive:
        assert archive.getnames() == [f"./x/{key}.{FEATURES}" for key in "cab"]
    (table,), (dataset,) = Store(pets / "S").feature_tables(), Store(pets / "S").datasets()
    for key, (_, _, data) in zip("cab", first, strict=True):
        assert np.array_equal(np.load(io.BytesIO(data)), table.get(dataset.get(f"x/{key}")["key"]))
    second = read_tar(tmp_path / "side" / "train" / "00001.tar")
    reasons = {"d": b"failed", "e": b"no features", "z": b"other image", "f": b"other image"}
    assert second == [(f"x/{key}", MISSING, reason) for key, reason in reasons.items()]
    assert (result["images"], result["without_features"], result["failed"], result["other_images"]) == (
        {"all": 3},
        4,
        1,
        2,
    )
    assert (result["captions"], result["files"], result["written"]) == (None, 2, 2)


def test_side_shards_are_the_same_bytes_again_and_in_parts(pets: Path, tmp_path: Path) -> None:
    first = export(pets, tmp_path / "one")
    export(pets, tmp_path / "two")
    (tmp_path / "two" / "train" / "00000.tar").unlink()
    again = export(pets, tmp_path / "two")
    assert again["written"] == 1
    assert {**again, "seconds": 0, "written": 0, "output": ""} == {**first, "seconds": 0, "written": 0, "output": ""}
    for name in ("00000.tar", "00001.tar"):
        assert (tmp_path / "one" / "train" / name).read_bytes() == (tmp_path / "two" / "train" / name).read_bytes()


def test_a_side_shard_is_kept_until_the_samples_of_its_shard_change(pets: Path, tmp_path: Path) -> None:
    shutil.copytree(pets / "shards", tmp_path / "shards")
    given = {"aligned_with": [str(tmp_path / "shards")]}
    export(pets, tmp_path / "side", **given)
    path = tmp_path / "shards" / "train" / "00000.tar"
    data = path.read_bytes()
    shutil.rmtree(tmp_path / "shards")
    shutil.copytree(pets / "shards", tmp_path / "shards", copy_function=shutil.copyfile)
    assert export(pets, tmp_path / "side", **given)["written"] == 0
    path.write_bytes(data.replace(show_stores.picture(0), bytes(len(show_stores.picture(0)))))
    again = export(pets, tmp_path / "side", **given)
    assert (again["written"], again["images"], again["other_images"]) == (1, {"all": 2}, 3)


def test_neighboring_files_with_one_key_are_a_sample(pets: Path, tmp_path: Path) -> None:
    names = [("x/a.txt", b"a dog"), ("x/b.txt", b"a dog"), ("x/a.png", show_stores.picture(0))]
    write_tar(tmp_path / "0.tar", names)
    export(pets, tmp_path / "side", aligned_with=[str(tmp_path / "0.tar")])
    found = [(key, field) for key, field, _ in read_tar(tmp_path / "side" / "0.tar")]
    assert found == [("x/a", MISSING), ("x/b", MISSING), ("x/a", FEATURES)]


def test_files_belong_to_samples_as_in_webdataset(pets: Path, tmp_path: Path) -> None:
    image = show_stores.picture(0)
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, kind in ODD_NAMES:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(image) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(image))
    result = export(pets, tmp_path / "side", aligned_with=[str(tmp_path / "0.tar")])
    with tarfile.open(tmp_path / "side" / "0.tar") as archive:
        found = archive.getnames()
    missing = [f"{key}.{MISSING}" for key in (".h/k", "x/", "x", "__a__b", "a.b/c", "x\ny")]
    assert found == [*missing, f"x/a.{FEATURES}"]
    assert (result["images"], result["other_images"]) == ({"all": 1}, len(missing))


@pytest.mark.parametrize(
    "name", ["../../x.png", "/x.png", "x/../../y.png", b"\xff.png".decode(errors="surrogateescape")]
)
def test_a_key_that_a_side_shard_cannot_have_is_an_error(pets: Path, tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "0.tar", [("x/a.png", show_stores.picture(0)), (name, b"")])
    with pytest.raises(CaptError) as caught:
        export(pets, tmp_path / "side", aligned_with=[str(tmp_path / "0.tar")])
    assert caught.value.hint
    assert not (tmp_path / "side" / "0.tar").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"format": "npy"},
        {"split": "train"},
        {"shard_size": 5},
        {"without_captions": True},
        {"caption_table": "ab"},
        {"aligned_with": ["none.tar"]},
    ],
)
def test_side_shards_that_contradict_another_option_are_refused(
    pets: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        export(pets, tmp_path / "side", **options)
    assert not (tmp_path / "side").exists()


def test_side_shards_are_not_written_among_the_shards(pets: Path) -> None:
    before = sorted(pets.rglob("*"))
    for output in (pets / "shards", pets / "shards" / "side"):
        with pytest.raises(UsageError):
            export(pets, output)
    assert sorted(pets.rglob("*")) == before


def test_side_shards_of_shards_above_the_working_directory_have_names_without_dots(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After a link, `..` is the parent of its target.
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "sub")
    for path in (tmp_path / "real" / "0.tar", tmp_path / "real" / "sub" / "train" / "0.tar"):
        write_tar(path, [("x/a.png", show_stores.picture(0))])
    before = (tmp_path / "real" / "0.tar").read_bytes()
    monkeypatch.chdir(tmp_path / "link")
    result = export(pets, Path("../out"), aligned_with=["train/0.tar", f"{tmp_path}/link/../0.tar"])
    assert result["images"] == {"all": 2}
    assert sorted((tmp_path / "real" / "out").glob("*/*.tar")) == [
        tmp_path / "real" / "out" / name / "0.tar" for name in ("real", "train")
    ]
    assert (tmp_path / "real" / "0.tar").read_bytes() == before


def test_a_side_shard_never_replaces_a_shard(pets: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(pets / "shards" / "train", shards)
    (tmp_path / "link").symlink_to(shards)
    write_tar(tmp_path / "export.json", [("x/a.png", show_stores.picture(0))])
    write_tar(tmp_path / "a+b.tar", [("x/a.png", show_stores.picture(0))])
    export(pets, tmp_path / "earlier", aligned_with=[str(shards / "00000.tar")])
    before = {path: path.read_bytes() for path in (*shards.iterdir(), tmp_path / "earlier" / "00000.tar")}
    for given, output in (
        (shards / "00000.tar", shards),
        (tmp_path / "earlier" / "00000.tar", tmp_path / "earlier"),
        (shards / "00000.tar", tmp_path / "link"),
        (tmp_path / "link", shards),
        (shards, tmp_path / "link" / "side"),
        (tmp_path / "export.json", tmp_path / "side"),
        (tmp_path / "a+b.tar", tmp_path / "side"),
    ):
        with pytest.raises(UsageError):
            export(pets, output, aligned_with=[str(given)])
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "side").exists()


@pytest.mark.parametrize("name", ["../x.tar", "/x.tar", "a//x.tar", "./x.tar", "export.json", ""])
def test_an_export_writes_no_file_outside_of_its_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        ExportDirectory(tmp_path, ExportRecord(settings={})).locate(name)


def test_a_shard_that_cannot_be_read_to_its_end_has_no_side_shard(pets: Path, tmp_path: Path) -> None:
    shutil.copytree(pets / "shards", tmp_path / "shards")
    path = tmp_path / "shards" / "train" / "00001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(CaptError, match=r"00001\.tar"):
        export(pets, tmp_path / "side", aligned_with=[str(tmp_path / "shards")])
    assert not (tmp_path / "side" / "train" / "00001.tar").exists()


def test_shards_of_another_dataset_are_an_error(pets: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("x/a.png", b"another image")])
    with pytest.raises(CaptError):
        export(pets, tmp_path / "side", aligned_with=[str(tmp_path / "0.tar")])
