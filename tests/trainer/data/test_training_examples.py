"""The programs of examples/training learn from a prepared store, in processes of their own."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[3] / "examples" / "training"

pytestmark = pytest.mark.slow


def run(name: str, *options: object) -> tuple[list[float], str]:
    """Returns the losses of the epochs, and the last line."""
    command = [sys.executable, str(PROGRAMS / name), *map(str, options)]
    path = os.pathsep.join([str(PROGRAMS.parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [float(one) for one in re.findall(r"epoch \d+: loss ([\d.]+)", done.stdout)], done.stdout.splitlines()[-1]


def test_jax_learns_from_cached_features(store):
    losses, caption = run("soft_attention_jax.py", store.path, "--epochs", 20, "--batch-size", 16)
    assert losses[-1] < losses[0] / 2
    assert set(caption.split()[1:]) <= set(store.caption_tables()[0].vocabulary())
    assert store.feature_tables()[0].get(_key(store, caption)) is not None


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_learns_from_cached_features_and_goes_on(store, tmp_path):
    options = ["--batch-size", 16, "--save-steps", 1, "--checkpoint", tmp_path / "model.pt"]
    losses, _ = run("soft_attention_pytorch.py", store.path, "--epochs", 10, *options)
    further, caption = run("soft_attention_pytorch.py", store.path, "--epochs", 20, *options)
    assert len(losses) == len(further) == 10
    assert further[-1] < losses[0] / 2
    assert store.feature_tables()[0].get(_key(store, caption)) is not None


def _key(store, caption: str) -> bytes:
    (key,) = [
        key.tobytes()
        for keys in store.feature_tables()[0].key_blocks()
        for key in keys
        if key.tobytes().hex().startswith(caption.split()[0])
    ]
    return key
