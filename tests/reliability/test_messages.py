"""Wrong options and a wrong environment are one line; what makes work slow is said before the work begins."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import capt
from features.runtime.keras_backend import choose_backend
from features.runtime.numerics import read_cpu_flags
from schemas.errors import UsageError
from tests.commands import CommandServer
from tests.conftest import noise_image

CAPT = Path(sys.executable).with_name("capt")
SMALL = ["--extractor", "mobilenet_v3_small", "--pooling", "avg", "--weights", "random:7"]
PIXELS = ["--extractor", "pixels", "--height", "8", "--width", "8"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    noise_image(1).save(tmp_path / "images" / "a.jpg")
    return tmp_path / "images"


def prepare(images: Path, *options: str) -> list[str]:
    location = ["--store", str(images.parent / "store"), "--dataset-type", "folder", "--images", str(images)]
    return ["prepare", "features", *location, *options]


def run_alone(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process that has imported nothing."""
    given = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    return subprocess.run([CAPT, *command], capture_output=True, text=True, env=given, check=False)


@pytest.mark.parametrize("size", ["0", "-1", "many", "1.5"])
def test_a_batch_size_that_is_none_is_wrong_usage_that_lists_both_kinds(images: Path, size: str) -> None:
    with pytest.raises(UsageError) as caught:
        capt.prepare_features(
            store=str(images.parent / "store"), dataset_type="folder", images=[str(images)], batch_size=size
        )
    assert caught.value.location == "--batch-size"
    assert "'auto'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (images.parent / "store").exists()


@pytest.mark.parametrize("backend", ["nothing", "theano", "TensorFlow ", "openvino"])
def test_a_backend_that_capt_does_not_support_is_wrong_usage_in_one_line(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(UsageError) as caught:
        choose_backend()
    assert caught.value.location == "KERAS_BACKEND"


def test_a_backend_whose_package_is_not_installed_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        choose_backend()
    assert caught.value.location == "KERAS_BACKEND"


def test_an_empty_backend_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "")
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_a_command_with_a_wrong_backend_ends_with_exit_code_2_and_one_line(images: Path) -> None:
    done = run_alone(prepare(images, *SMALL), KERAS_BACKEND="nothing")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "KERAS_BACKEND" in done.stderr


def test_the_option_is_valid_with_any_variable(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "nothing")
    given = {"store": str(images.parent / "store"), "dataset_type": "folder", "images": [str(images)]}
    size = {"extractor": "pixels", "height": 8, "width": 8}
    assert capt.prepare_features(**given, **size, backend="tensorflow")["ok"] == 1
    assert os.environ["KERAS_BACKEND"] == "nothing"


def test_a_command_with_a_wrong_batch_size_ends_with_exit_code_2_and_one_line(
    commands: CommandServer, images: Path
) -> None:
    done = commands.capt(*prepare(images, *PIXELS, "--batch-size", "0"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_emulated_arithmetic_is_reported_before_the_work_begins(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the processor may use is what oneDNN is allowed, so this holds on every machine.
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    store = images.parent / "store"
    shards_at_warnings: list[int] = []

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shards_at_warnings.append(len([*store.rglob("*.tfrecord"), *store.rglob("units/*")]))

    watching = Watching(logging.WARNING)
    logging.getLogger("capt").addHandler(watching)
    options: dict[str, Any] = {"dataset_type": "folder", "images": [str(images)], "split_ratios": "1,0,0"}
    options |= {"extractor": "mobilenet_v3_small", "weights": "random:7", "pooling": "avg", "store": str(store)}
    try:
        capt.prepare_features(**options, precision="bfloat16", dry_run=True)
        first = len(shards_at_warnings)
        capt.prepare_features(**options, precision="bfloat16")
        second = len(shards_at_warnings) - first
        capt.prepare_features(**options, precision="float32", dataset_name="other")
        third = len(shards_at_warnings) - first - second
    finally:
        logging.getLogger("capt").removeHandler(watching)
    assert second - third == 1
    assert not any(shards_at_warnings[: first + second])


@pytest.mark.parametrize("verbosity", ["-q", "--debug"])
def test_pillows_warnings_about_an_image_reach_no_terminal(
    commands: CommandServer, images: Path, verbosity: str
) -> None:
    for number, ending in enumerate([b"", b"\1\0\0\0\6\0\0\0\x0f\1\2\0\x50\0\0\0\xff\0\0\0"]):
        exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0" + ending
        Image.new("RGB", (9, 9), "red").save(images / f"{number}.jpg", exif=exif)
        Image.new("RGB", (9, 9), "blue").save(images / f"{number}.png", exif=exif)
    done = commands.capt(*prepare(images, *PIXELS, verbosity, "--json"))
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["ok"] == 5
    assert "Warning" not in done.stderr
    if verbosity == "-q":
        assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE"])
def test_bfloat16_is_computed_or_reported_as_float32_whatever_the_processor(images: Path, limit: str) -> None:
    done = run_alone(prepare(images, *SMALL, "--precision", "bfloat16", "--json"), ONEDNN_MAX_CPU_ISA=limit)
    assert done.returncode == 0, done.stderr
    (table,) = capt.store_stats(store=str(images.parent / "store"))["feature_tables"]
    (numerics,) = table["numerics"]
    if numerics.startswith("cpu/avx"):
        can_emulate = limit != "AVX2" and "avx512f" in read_cpu_flags()
        assert numerics.endswith("bfloat16" if can_emulate else "float32")
