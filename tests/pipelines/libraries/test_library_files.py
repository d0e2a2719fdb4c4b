"""capt reads files that WebDataset, datasets and img2dataset have written as these libraries do, also with faults.

CAPT_LIBRARIES names the Python of an environment with `requirements.txt`; without it, the tests are skipped.
"""

import json
import os
import shutil
import subprocess
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import capt
from features.text.lines import FailedRecord
from pipelines.datasets import open_reader
from tests.image_server import image_server
from tests.pipelines.datasets.test_huggingface import corrupt

PYTHON = "CAPT_LIBRARIES"
WRITER = Path(__file__).with_name("write_files.py")
TYPES = {"classes": "imagefolder", "img2dataset": "webdataset"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON not in os.environ, reason=f"{PYTHON} names no Python with the libraries"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of all libraries, and `expected.json`."""
    root = tmp_path_factory.mktemp("libraries")
    environment = {**os.environ, "HF_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    with image_server() as server:
        command = [os.environ[PYTHON], str(WRITER), str(root), server.url("")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def prepare(store: Path, kind: str, path: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summaries of both commands."""
    given = {"store": str(store), "dataset_type": kind, "dataset_name": "d", "max_failures": "100%", **options}
    sizes = {"extractor": "pixels", "height": 8, "width": 8}
    features = capt.prepare_features(**given, images=[str(path)], **sizes)
    return features, capt.prepare_captions(**given, annotations=[str(path)])


def read_store(store: Path, fingerprint: str) -> dict[str, tuple[str, list[str], str]]:
    """Split, captions and content hash of each image."""
    opened = capt.open_store(store)
    captions = defaultdict(list)
    for row in opened.caption_table(fingerprint).captions().to_pylist():
        captions[row["image_id"]].append((row["caption_id"], row["caption"]))
    return {
        row["image_id"]: (row["split"], [text for _, text in sorted(captions[row["image_id"]])], row["key"].hex())
        for row in opened.dataset("d").catalog().to_pylist()
    }


@pytest.mark.parametrize("layout", ["webdataset", "huggingface", "imagefolder", "classes", "img2dataset"])
def test_capt_reads_what_the_library_reads(layout: str, files: Path, tmp_path: Path) -> None:
    expected = json.loads((files / "expected.json").read_text())[layout]
    features, captions = prepare(tmp_path, TYPES.get(layout, layout), files / layout)
    assert (features["failed"], captions["failed"]) == (0, 0)
    found = read_store(tmp_path, captions["fingerprint"])
    assert len(expected) == len(found)
    for image_id, split, texts, digest in expected:
        assert found[image_id] == (split or found[image_id][0], texts, digest)
    if layout == "img2dataset":
        assert features["not_downloaded"] == captions["not_downloaded"] == {"failed_to_download": 2}


def rewrite(source: Path, target: Path, without: str) -> None:
    """Copies a tar without the members whose name ends so."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old.getmembers():
            if not member.name.endswith(without):
                new.addfile(member, old.extractfile(member))


def test_faults_in_shards_cost_their_own_samples(files: Path, tmp_path: Path) -> None:
    source = files / "webdataset" / "train-00000.tar"
    (tmp_path / "x").mkdir()
    rewrite(source, tmp_path / "x" / "0.tar", "000001.jpg")
    rewrite(source, tmp_path / "x" / "1.tar", "000002.txt")
    # Two shards of one sample each, one after the other: the second has the key of the first, and other bytes.
    with tarfile.open(tmp_path / "x" / "2.tar", "w") as doubled:
        for name in ("train-00000.tar", "train-00001.tar"):
            with tarfile.open(files / "webdataset" / name) as old:
                member = next(one for one in old.getmembers() if one.name.endswith(".jpg"))
                data = old.extractfile(member)
                member.name = "same.jpg"
                doubled.addfile(member, data)
    data = source.read_bytes()
    (tmp_path / "x" / "3.tar").write_bytes(data[: data.index(b"000002.jpg") + 600])
    features, captions = prepare(tmp_path / "S", "webdataset", tmp_path / "x")
    # Samples: 4 in each copy, the doubled one, and those before the end of the incomplete shard.
    assert features["reasons"]["no image"] == captions["reasons"]["no image"] == 1
    assert captions["reasons"]["no caption"] >= 1
    assert features["reasons"]["ambiguous"] == 1
    assert features["reasons"]["incomplete archive"] == captions["reasons"]["incomplete archive"] == 1
    assert sum(features[one] for one in ("ok", "cached", "duplicate", "failed")) == features["input"]
    assert sum(captions[one] for one in ("ok", "cached", "duplicate", "failed")) == captions["input"]


def test_a_side_file_tells_what_the_shard_has_lost(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "img2dataset", tmp_path / "x")
    rewrite(files / "img2dataset" / "00000.tar", tmp_path / "x" / "00000.tar", "00000.jpg")
    rewrite(tmp_path / "x" / "00000.tar", tmp_path / "00000.tar", "00000.txt")
    rewrite(tmp_path / "00000.tar", tmp_path / "x" / "00000.tar", "00000.json")
    features, captions = prepare(tmp_path / "S", "webdataset", tmp_path / "x")
    assert (features["input"], features["reasons"]) == (8, {"missing": 1})
    assert (captions["input"], captions["reasons"]) == (8, {"missing": 1})


def test_faults_in_parquet_cost_their_own_rows(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "huggingface", tmp_path / "x")
    corrupt(str(tmp_path / "x" / "train-00000-of-00001.parquet"), 1, "image.bytes")
    features, captions = prepare(tmp_path / "S", "huggingface", tmp_path / "x")
    assert (features["input"], features["reasons"]) == (10, {"unreadable": 3})
    assert (captions["input"], captions["failed"]) == (20, 0)


def test_captions_of_another_type_fail_row_by_row(files: Path) -> None:
    read = list(open_reader("huggingface", [str(files / "wrong.parquet")]).read_captions())
    assert [one.reason for one in read if isinstance(one, FailedRecord)] == ["caption is not text"] * 2
    assert len(read) == 2
