"""Nothing outside the input changes what is stored."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from features.runtime.fixed_execution import find_fixed_execution
from features.runtime.numerics import read_cpu_flags
from tests.conftest import noise_image

CAPT = Path(sys.executable).with_name("capt")
CAPTIONS = ["A DOG İn the SUN", "straße und café", "ein Hund – 3,5 m", "naïve 犬"]
KERAS = {"floatx": "float16", "epsilon": 0.5, "backend": "jax", "image_data_format": "channels_first"}
PLAIN = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "1"}
HOSTILE = {
    "LC_ALL": "C",
    "TZ": "Asia/Kathmandu",
    "PYTHONHASHSEED": "2",
    "OMP_NUM_THREADS": "1",
    "KERAS_HOME": "",  # replaced by the home's
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "NVIDIA_TF32_OVERRIDE": "0",
}


def _stored(store: Path) -> dict[str, str]:
    """SHA-256 of the stored files that hold rows, by path."""
    suffixes = (".tfrecord", ".parquet", ".pb", ".txt")
    files = (path for path in store.rglob("*") if path.name.endswith(suffixes) and "reports" not in path.parts)
    parts = {path: path.relative_to(store).parts for path in files}
    named = {
        path: f"{'/'.join(p[:2])}/{p[-1]}" for path, p in parts.items() if p[0] in ("features", "text", "networks")
    }
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for path, name in named.items()}


def _prepare(root: Path, weights: str, environment: dict[str, str], *, cpus: set[int], umask: int) -> dict[str, str]:
    root.mkdir()
    (root / ".keras").mkdir()
    given = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "HOME": str(root), **environment}
    given.pop("KERAS_BACKEND", None)
    if "KERAS_HOME" in environment:
        (root / ".keras/keras.json").write_text(json.dumps(KERAS))
        given["KERAS_HOME"] = str(root / ".keras")
    data = ["--store", str(root / "s"), "--dataset-type", "csv", "--annotations", "../c.csv", "-q"]
    network = ["--images", "../ph", "--extractor", "mobilenet_v3_small", "--pooling", "avg", "--weights", weights]

    def confine() -> None:
        os.sched_setaffinity(0, cpus)
        os.umask(umask)

    for command in (["prepare", "features", *data, *network], ["prepare", "captions", *data]):
        subprocess.run([CAPT, *command], env=given, cwd=root, check=True, preexec_fn=confine)
    return _stored(root / "s")


RANDOM = pytest.param(
    "random:7",
    marks=pytest.mark.skipif(
        find_fixed_execution(read_cpu_flags()) is not None, reason="without AVX-512, all cores calibrate random weights"
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [RANDOM, "../w.weights.h5"])
def test_settings_of_the_machine_change_no_stored_byte(tmp_path: Path, weights: str) -> None:
    keras.utils.set_random_seed(0)
    keras.applications.MobileNetV3Small((224, 224, 3), include_top=False, weights=None).save_weights(
        tmp_path / "w.weights.h5"
    )
    (tmp_path / "ph").mkdir()
    for number in range(len(CAPTIONS)):
        noise_image(number).save(tmp_path / "ph" / f"{number}.jpg")
    rows = "".join(f'{number}.jpg,"{caption}",train\n' for number, caption in enumerate(CAPTIONS))
    (tmp_path / "c.csv").write_text(f"image,caption,split\n{rows}", encoding="utf-8")
    cpus = os.sched_getaffinity(0)
    plain = _prepare(tmp_path / "plain", weights, PLAIN, cpus=cpus, umask=0o022)
    assert len(plain) >= 4
    assert _prepare(tmp_path / "other", weights, HOSTILE, cpus={min(cpus)}, umask=0o077) == plain
