"""The libraries that the formats of `capt store export` are for load the values of the store.

CAPT_LIBRARIES names the Python of an environment with `requirements.txt`; without it, the tests are skipped.
"""

import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any, get_args

import pytest

import capt
from features.store import Store, create_store
from schemas.choices import ExportFormat
from tests.conftest import noise_image
from tests.pipelines.libraries.test_library_files import PYTHON
from tests.pipelines.store_export.test_side_shards import ODD_NAMES
from tests.workflows import show_stores

READER = Path(__file__).with_name("read_exports.py")
SPLITS = ("train", "val")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON not in os.environ, reason=f"{PYTHON} names no Python with the libraries"),
]


def run_reader(*arguments: object, cache: Path) -> Any:
    """Runs `read_exports.py`, which returns what it prints."""
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [os.environ[PYTHON], str(READER), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Nine images in two splits, with one or two captions."""
    root = tmp_path_factory.mktemp("pets")
    store = create_store(root / "S")
    photos = [
        show_stores.photo(root / "a.b", n, SPLITS[n % 3 == 0], ("a dog", "a dog runs")[: 1 + n % 2]) for n in range(9)
    ]
    for one in photos:
        object.__setattr__(one, "image_id", f"a.b/{one.image_id}.jpg")
    show_stores.add_dataset(store, photos)
    show_stores.add_features(store, [one.key for one in photos])
    show_stores.add_captions(store, photos)
    return store


def test_libraries_load_the_rows_of_the_store(pets: Store, tmp_path: Path) -> None:
    (dataset,), (table,), (texts,) = pets.datasets(), pets.feature_tables(), pets.caption_tables()
    captions = sorted(texts.captions().to_pylist(), key=lambda row: row["caption_id"])
    expected: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for row in dataset.catalog().to_pylist():
        own = [one for one in captions if one["image_id"] == row["image_id"]]
        digest = hashlib.sha256(table.get(row["key"]).tobytes()).hexdigest()
        lists = [one["caption"] for one in own], [one["tokens"] for one in own]
        expected[row["split"]].append([row["image_id"], *lists, list(table.shape), "float16", digest])
    names = get_args(ExportFormat)
    for name in names:
        capt.store_export(store=str(pets.path), format=name, output=str(tmp_path / name), shard_size=4)
    assert run_reader(tmp_path, cache=tmp_path / "cache") == dict.fromkeys(names, expected)


def test_webdataset_reads_shards_and_their_side_shards_in_step(tmp_path: Path) -> None:
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for number in range(shard, 6, 2):
                path = tmp_path / "image.jpg"
                noise_image(number).save(path)
                archive.add(path, f"a.b/{number}.jpg")
    shards = tmp_path / "shards"
    shards.mkdir()
    for path in tmp_path.glob("*.tar"):
        path.rename(shards / path.name)
    given = {"store": str(tmp_path / "S"), "dataset_type": "webdataset", "images": [str(shards)]}
    capt.prepare_features(**given, extractor="pixels", height=8, width=8, limit_images=5)
    result = capt.store_export(
        store=given["store"], format="webdataset", output=str(tmp_path / "side"), aligned_with=[str(shards)]
    )
    assert (result["images"], result["without_features"]) == ({"all": 5}, 1)
    table = capt.open_store(given["store"]).feature_tables()[0]
    found = run_reader(shards, tmp_path / "side", cache=tmp_path / "cache")
    assert [key for key, _, _ in found] == [f"a.b/{number}" for number in (0, 2, 4, 1, 3, 5)]
    with_features = [one for one in found if one[2]]
    assert len(with_features) == 5
    assert all(hashlib.sha256(table.get(key).tobytes()).hexdigest() == digest for _, key, digest in with_features)


def test_webdataset_finds_the_same_samples_in_a_side_shard_with_odd_names(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    image = tmp_path / "image.jpg"
    noise_image(0).save(image)
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as archive:
        for name, kind in ODD_NAMES:
            info = tarfile.TarInfo(name.replace("png", "jpg"))
            info.type, info.size = kind, image.stat().st_size if kind == tarfile.REGTYPE else 0
            with image.open("rb") as file:
                archive.addfile(info, file)
    given = {"store": str(tmp_path / "S"), "dataset_type": "webdataset", "images": [str(tmp_path / "shards")]}
    capt.prepare_features(**given, extractor="pixels", height=8, width=8, max_failures="100%")
    shards, side = str(tmp_path / "shards"), str(tmp_path / "side")
    capt.store_export(store=given["store"], format="webdataset", output=side, aligned_with=[shards])
    # The reader compares the keys.
    found = run_reader(shards, side, cache=tmp_path / "cache")
    assert [key for key, _, _ in found] == [".h/k", "x/", "x", "__a__b", "a.b/c", "x\ny", "x/a"]
