"""Data and fixtures of all tests: images of noise, directories, COCO annotations, archives."""

import gc
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from PIL import Image

from features.extractors.extractor import Extractor
from pipelines.jobs import frozen_extractor
from pipelines.jobs.caption_job import CaptionJob
from schemas.table_config import FeatureTableConfig
from tests.commands import CommandServer

REAL_DATA = os.environ.get("CAPT_TEST_DATA", "")
_WHICH = shutil.which


def pytest_collection_finish() -> None:
    """Exclude the million objects of the imports from garbage collection, and collect less often."""
    gc.collect()
    gc.freeze()
    young, old, _ = gc.get_threshold()
    gc.set_threshold(young, old, 50)


def pytest_sessionfinish() -> None:
    """Let the process free all objects at its end."""
    gc.unfreeze()


def noise_image(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """A smooth seeded color image; each seed has its own."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of seeded JPEGs: `photos(count, folder="images", first=0)`."""

    def make(count: int, folder: str = "images", first: int = 0) -> Path:
        directory = tmp_path / folder
        directory.mkdir(exist_ok=True)
        for number in range(first, first + count):
            noise_image(number).save(directory / f"{number:012d}.jpg", quality=90)
        return directory

    return make


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COCO captions file: `coco(ids, name="captions_train2017.json", captions=5)`."""

    def make(ids: range | list[int], name: str = "captions_train2017.json", captions: int = 5) -> Path:
        data: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        for number in ids:
            data["images"].append({"id": number, "file_name": f"{number:012d}.jpg"})
            for other in range(captions):
                data["annotations"].append(
                    {
                        "id": number * 10 + other,
                        "image_id": number,
                        "caption": f"A thing number {number} seen {other}. ",
                    }
                )
        path = tmp_path / name
        path.write_text(json.dumps(data))
        return path

    return make


def zip_of(directory: Path, path: Path) -> Path:
    """Zips the files of a directory under the directory's name."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(directory.iterdir()):
            archive.write(file, f"{directory.name}/{file.name}")
    return path


@pytest.fixture(scope="session", autouse=True)
def skip_fsync() -> Iterator[None]:
    """Files of tests need not survive a crash of the machine, so fsync does nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def skip_meteor(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hides Java, because METEOR takes seconds to start, from all tests but those of metrics and of engines."""
    if {"metrics", "distributed"} & set(_folders(request)):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name, *given: None if name == "java" else _WHICH(name, *given))
        yield


@pytest.fixture
def with_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows Java to one test of a module from which it is hidden."""
    monkeypatch.setattr(shutil, "which", _WHICH)


def _folders(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.path.relative_to(Path(__file__).parent).parts


@pytest.fixture(scope="session", autouse=True)
def reuse_frozen_extractors() -> Iterator[dict[FeatureTableConfig, Any]]:
    """Builds the graph of each table config once per process."""
    built: dict[FeatureTableConfig, Any] = {}
    build = frozen_extractor._build

    def once(table_config: FeatureTableConfig, extractor: Extractor) -> Any:
        if table_config not in built:
            built[table_config] = build(table_config, extractor)
        return built[table_config]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_extractor, "_build", once)
        yield built


@pytest.fixture(scope="session", autouse=True)
def reuse_transforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Any, Path]]:
    """Computes the transform of each caption table config once per process."""
    made: dict[Any, Path] = {}
    make = CaptionJob._make_transform

    def once(job: CaptionJob, plan: Path, directory: Path, beam_options: Sequence[str]) -> Path:
        wanted = (job.table_config, job.words and tuple(job.words))
        if wanted not in made:
            new = make(job, plan, directory, beam_options)
            made[wanted] = shutil.copytree(new, tmp_path_factory.mktemp("transforms") / new.name)
            return new
        return Path(shutil.copytree(made[wanted], directory / made[wanted].name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CaptionJob, "_make_transform", once)
        yield made


@pytest.fixture(scope="session")
def commands() -> Iterator[CommandServer]:
    """Runs capt's commands, each in a process of its own."""
    with CommandServer() as server:
        yield server


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory of real data that CAPT_TEST_DATA names."""
    if not REAL_DATA:
        pytest.skip("CAPT_TEST_DATA names no folder of real data")
    return Path(REAL_DATA)
