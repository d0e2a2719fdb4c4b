"""The same photos in every layout have the same feature rows, and are extracted once."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

import capt
from tests.conftest import noise_image
from tests.pipelines.datasets.test_huggingface import parquet
from tests.pipelines.datasets.test_webdataset import tar

PHOTOS = 6
SIZE = {"extractor": "pixels", "height": 16, "width": 16}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Dataset type and path of each layout."""
    root = tmp_path_factory.mktemp("photos")
    folder = root / "folder"
    folder.mkdir()
    for number in range(PHOTOS):
        noise_image(number).save(folder / f"{number}.jpg")
    photos = {path.stem: path.read_bytes() for path in sorted(folder.iterdir())}
    texts = {key: f"A photo of {key}" for key in photos}
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    members = {key: [(f"{key}.jpg", photos[key]), (f"{key}.txt", texts[key].encode())] for key in photos}
    for shard, keys in enumerate((list(photos)[:4], list(photos)[4:])):
        tar(root / "shards" / f"{shard:05d}.tar", [one for key in keys for one in members[key]])
    images = [{"bytes": photos[key], "path": f"{key}.jpg"} for key in photos]
    parquet(root / "data" / "train-00000-of-00001.parquet", {"image": images, "caption": list(texts.values())})
    shutil.copytree(folder, root / "imagefolder")
    lines = [json.dumps({"file_name": f"{key}.jpg", "text": text}) for key, text in texts.items()]
    (root / "imagefolder" / "metadata.jsonl").write_text("\n".join(lines))
    return {
        "folder": ("folder", str(folder)),
        "zip": ("folder", str(root / "photos.zip")),
        "webdataset": ("webdataset", str(root / "shards" / "{00000..00001}.tar")),
        "huggingface": ("huggingface", str(root / "data")),
        "imagefolder": ("imagefolder", str(root / "imagefolder")),
    }


def prepare(store: Path, kind: str, path: str, **options: Any) -> dict[str, Any]:
    return capt.prepare_features(store=str(store), dataset_type=kind, images=[path], **SIZE, **options)  # type: ignore[no-any-return]


def shards(store: Path, fingerprint: str) -> dict[str, bytes]:
    """The files with the rows of a table, by name."""
    root = capt.open_store(store).feature_table(fingerprint).root
    return {path.name: path.read_bytes() for path in sorted(Path(root).rglob("*.tfrecord"))}


def test_photos_in_another_layout_are_not_extracted_again(layouts: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    seen = {name: prepare(tmp_path, kind, path, dataset_name=name) for name, (kind, path) in layouts.items()}
    assert len({one["fingerprint"] for one in seen.values()}) == 1
    assert [(one["ok"], one["cached"]) for one in seen.values()] == [(PHOTOS, 0), *[(0, PHOTOS)] * (len(seen) - 1)]
    keys = [set(capt.open_store(tmp_path).dataset(name).catalog()["key"].to_pylist()) for name in seen]
    assert all(one == keys[0] for one in keys)


def test_every_layout_alone_has_the_same_rows(layouts: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    found = {
        name: shards(tmp_path / name, prepare(tmp_path / name, *one)["fingerprint"]) for name, one in layouts.items()
    }
    assert found["folder"]
    assert all(one == found["folder"] for one in found.values())
