"""The accelerator's benchmark runs without TensorFlow, and its back-off goes on with half of what did not fit."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import runpy, sys
sys.modules["tensorflow"] = None  # as if it were not installed
sys.path.insert(0, sys.argv[1])
runpy.run_path(f"{sys.argv.pop(1)}/gpu_extract.py", run_name="__main__")
"""
OPTIONS = (
    "--photographs 2 --count 12 --first-batch 4 --max-batch 1024 --seconds 0.05 --product 64 --rounds 1"
    " --units 2 --threads 2"
)


@pytest.fixture
def wasteful(tmp_path):
    """A network that takes 6 MiB an image."""
    image = keras.Input((32, 32, 3))
    maps = keras.layers.MaxPooling2D(3, strides=1)(keras.layers.UpSampling2D(16)(image))
    maps = keras.layers.Conv2D(2, 4, strides=4)(keras.layers.AveragePooling2D(32)(maps))
    keras.Model(image, maps).save(tmp_path / "wasteful.keras")
    return f"custom:{tmp_path}/wasteful.keras"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_program_measures_and_backs_off(backend, wasteful, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    # Every arena of the allocator takes address space, which is what is limited, and threads make as many as they like.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": backend, "MALLOC_ARENA_MAX": "2"}
    options = [*OPTIONS.split(), "--extractor", wasteful, "--precision", "float32", "--memory", "2"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / "benchmarks"), *options],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["backend"] == backend
    assert all(rate > 0 for rates in figures["rates"].values() for rate in rates)
    assert figures["flops_per_image"] == 2 * (3 * 3) * (4 * 4 * 3 * 2)  # one convolution, at 3×3 places
    backed_off = figures["backed_off"]
    assert backed_off["settled"] < backed_off["batch"]
    assert backed_off["extracted"] == backed_off["images"] == backed_off["batch"]
