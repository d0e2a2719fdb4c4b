"""Executes notebooks in an environment that has capt and its dependencies, and neither the checkout nor its tests."""

import json
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from tests.examples.notebooks.notebook_files import ROOT, read_notebook

KERNEL = "clean"
Execute = Callable[..., dict[str, Any]]


def make_environment(directory: Path) -> Path:
    """Creates an environment with the dependencies of this one, without capt, and returns its Python.

    The dependencies are read from this environment, whose .pth files do not apply there, so its capt is not imported.
    """
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    Path(packages, "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


def install(python: Path, source: str) -> None:
    """Installs capt without its dependencies, which are there."""
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", source]
    subprocess.run(command, check=True)


def write_kernel(directory: Path, python: Path) -> Path:
    """Writes the kernel of an environment, and returns the directory for JUPYTER_PATH."""
    kernel = directory / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    arguments = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": arguments, "display_name": KERNEL, "language": "python"}))
    return directory


@pytest.fixture(scope="session")
def bare_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the kernel of an environment without capt."""
    root = tmp_path_factory.mktemp("bare")
    return write_kernel(root / "jupyter", make_environment(root / "environment"))


@pytest.fixture(scope="session")
def clean_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the kernel of an environment in which the working tree is installed by pip."""
    root = tmp_path_factory.mktemp("clean")
    python = make_environment(root / "environment")
    source = root / "source"
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, names):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    install(python, str(source))
    return write_kernel(root / "jupyter", python)


@pytest.fixture
def execute(clean_kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Executes a notebook in an empty directory: `execute(name, "expression", …)` returns the values at its end."""

    def run(name: str, *expressions: str, timeout: int = 600) -> dict[str, Any]:
        monkeypatch.setenv("JUPYTER_PATH", str(clean_kernel))
        monkeypatch.delenv("PYTHONPATH", raising=False)
        notebook = read_notebook(name)
        values = ", ".join(f"{one!r}: {one}" for one in expressions)
        notebook.cells.append(new_code_cell(f"import json\n\nprint(json.dumps({{{values}}}, default=str))"))
        resources = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=timeout, kernel_name=KERNEL, resources=resources).execute()
        result: dict[str, Any] = json.loads(notebook.cells[-1].outputs[0].text)
        return {**result, "figures": _count_figures(notebook)}

    return run


def _count_figures(notebook: Any) -> int:
    """Counts the cells that show an image."""
    outputs = [cell.get("outputs", ()) for cell in notebook.cells]
    return sum(any("image/png" in one.get("data", {}) for one in shown) for shown in outputs)
