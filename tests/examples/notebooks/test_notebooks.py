"""The notebooks of the examples equal their settings files, and contain nothing of the machine that wrote them."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

import capt
from tests.examples.notebooks.conftest import KERNEL
from tests.examples.notebooks.notebook_files import (
    DIRECTORY,
    NAMES,
    ROOT,
    VARIABLES,
    NotebookSettings,
    parse_variable,
    read_cell,
    read_literals,
    read_notebook,
)

REPOSITORY = "github.com/OWNER/capt"
_HOME = re.compile(r"/(home|Users|root|work|tmp|content)/|[A-Z]:\\")


def test_there_are_notebooks() -> None:
    assert "a_attention_lab" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_no_outputs_and_no_absolute_paths(name: str) -> None:
    notebook = read_notebook(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert not _HOME.search((DIRECTORY / f"{name}.ipynb").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cells_open_the_notebook_in_colab_and_install_capt(name: str) -> None:
    title, *_ = read_notebook(name).cells
    assert f"colab.research.google.com/{REPOSITORY.replace('.com', '')}/blob/main/examples/notebooks/{name}.ipynb" in (
        title.source
    )
    code = [cell for cell in read_notebook(name).cells if cell.cell_type == "code"]
    assert code[0].source == read_cell(name, "install") == read_cell(NAMES[0], "install")
    assert f"git+https://{REPOSITORY}" in code[0].source


@pytest.mark.parametrize("name", NAMES)
def test_one_variable_selects_real_data(name: str) -> None:
    assert read_literals(name, "parameters") == {"DATA": None}
    stored = [node for cell in _code(name) for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Name)]
    assert [node.id for node in stored if isinstance(node.ctx, ast.Store)].count("DATA") == 1


@pytest.mark.parametrize("name", ["c_keras_captioner", "e_transformer"])
def test_real_data_of_flickr8k_are_the_files_that_capt_fetch_downloads(name: str) -> None:
    variables: dict[str, Any] = {"DATA": "downloads"}
    exec(read_cell(name, "data"), variables)
    assert variables["images"] == [Path("downloads", "Flickr8k_Dataset.zip")]
    assert variables["annotations"] == [Path("downloads", "Flickr8k_text.zip")]
    assert variables["dataset_type"] == "flickr8k"


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_a_notebook_are_those_of_its_file(name: str) -> None:
    settings, variables = NotebookSettings(name), read_literals(name, "settings")
    assert variables.pop("training") == settings.training
    assert variables
    for variable, values in variables.items():
        expected = settings.prepare(VARIABLES[variable])
        assert parse_variable(variable, values, expected) == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_file_is_accepted(name: str) -> None:
    settings = NotebookSettings(name)
    hyperparameters = settings.hyperparameters()
    assert {key: hyperparameters[key] for key in settings.training} == settings.training
    assert any(f"--config examples/configs/notebook_{name[0]}.yaml" in line for line in settings.commands)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_calls_functions_that_capt_has(name: str) -> None:
    names = {match for cell in _code(name) for match in re.findall(r"\bcapt\.(\w+)\(", cell)}
    assert len(names) > 4
    assert not [one for one in names if not callable(getattr(capt, one, None))]


def _code(name: str) -> list[str]:
    """Returns the code cells, the lines of IPython excluded."""
    sources = [cell.source for cell in read_notebook(name).cells if cell.cell_type == "code"]
    return [re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source) for source in sources]


@pytest.mark.slow
def test_the_first_cell_installs_capt_by_pip(
    bare_kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The repository is this one, and the dependencies are in the environment.
    for name, value in {
        "JUPYTER_PATH": str(bare_kernel),
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://{REPOSITORY}",
        "GIT_CONFIG_KEY_1": "safe.directory",  # the checkout may belong to another user
        "GIT_CONFIG_VALUE_1": "*",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's name for a switch that is on
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    notebook = read_notebook(NAMES[0])
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [code[0], code[0], new_code_cell("import capt\n\nprint(capt.__file__)")]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name=KERNEL, resources=resources).execute()
    assert "site-packages" in notebook.cells[-1].outputs[0].text
    assert str(bare_kernel.parent) in notebook.cells[-1].outputs[0].text
