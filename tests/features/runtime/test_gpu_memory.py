"""Memory of a GPU is reserved as needed unless a variable says otherwise. No test here has a GPU."""

import mmap
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from features.runtime.gpu_memory import check_gpu_memory
from features.runtime.keras_backend import choose_backend
from schemas.errors import UsageError

TENSORFLOW, JAX = "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE"
SHOW = f"import os, features; print(os.environ.get({TENSORFLOW!r}), os.environ.get({JAX!r}))"


def shown(**variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in (TENSORFLOW, JAX)}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env={**environment, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_memory_grows_by_default_in_every_process_that_imports_features() -> None:
    assert shown() == "true false"
    assert shown(CAPT_GPU_MEMORY="grow") == "true false"
    assert shown(CAPT_GPU_MEMORY="") == "true false"


def test_all_leaves_the_choice_to_the_libraries() -> None:
    assert shown(CAPT_GPU_MEMORY="all") == "None None"


def test_a_variable_of_a_library_takes_precedence() -> None:
    assert shown(**{TENSORFLOW: "false"}) == "false false"
    assert shown(**{JAX: "true"}) == "true true"


def test_an_unknown_value_is_wrong_usage_in_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPT_GPU_MEMORY", "4GB")
    with pytest.raises(UsageError, match=r"CAPT_GPU_MEMORY: unknown value '4GB'\. Use grow .* or all"):
        check_gpu_memory()
    with pytest.raises(UsageError, match="CAPT_GPU_MEMORY"):
        choose_backend()


def test_the_installed_tensorflow_reads_the_variable() -> None:
    spec = find_spec("tensorflow")
    assert spec is not None
    assert spec.origin is not None
    libraries = sorted(Path(spec.origin).parent.glob("libtensorflow_*.so*"))
    assert any(_contains(path, TENSORFLOW.encode()) for path in libraries)


def _contains(path: Path, text: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(text) >= 0
