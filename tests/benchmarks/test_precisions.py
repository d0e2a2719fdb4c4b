"""The precisions' benchmark compares what a network gives in bfloat16 with what it gives in float32."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from features.runtime.numerics import read_cpu_flags, resolve_onednn_precision

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "precisions.py"


@pytest.mark.slow
def test_features_in_bfloat16_come_near_and_are_not_the_same(tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((48, 64, 3))
    maps = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="maps")(keras.layers.Rescaling(1 / 255)(image))
    keras.Model(image, keras.layers.Conv2D(8, 3, strides=2, activation="relu")(maps)).save(tmp_path / "small.keras")
    options = ["--extractor", f"custom:{tmp_path}/small.keras", "--layer", "maps", "--scenes", "5"]
    done = subprocess.run(
        [sys.executable, PROGRAM, *options],
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if resolve_onednn_precision("bfloat16", read_cpu_flags()) != "bfloat16":
        assert (done.returncode, done.stdout) == (1, "")
        return
    assert not done.returncode, done.stderr
    assert done.stdout.startswith("5 images, custom:")
    mean, worst = map(float, re.findall(r"\d\.\d{6}", done.stdout))
    assert 0.999 < worst <= mean < 1
