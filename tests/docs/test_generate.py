"""The generated reference pages describe every command, option, hyperparameter and exit code."""

import importlib.util
import re
from pathlib import Path

import pytest

from schemas.errors import ExitCode
from schemas.options.commands import COMMANDS

GENERATOR = Path(__file__).parents[2] / "docs" / "generate.py"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate", GENERATOR)
    assert spec
    assert spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    directory = tmp_path_factory.mktemp("generated")
    generate.write_pages(directory)
    return {path.stem: path.read_text(encoding="utf-8") for path in directory.glob("*.md")}


@pytest.mark.parametrize(
    "page",
    ["command_line", "hyperparameters", "experiment_file", "recipe_file", "recipes", "retraining_file", "columns"],
)
def test_every_row_of_a_reference_page_has_a_meaning(pages: dict[str, str], page: str) -> None:
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in pages[page].splitlines() if line.startswith("| `")]
    assert rows
    assert [row for row in rows if not row[-1].strip()] == []


def test_every_command_and_exit_code_is_described(pages: dict[str, str]) -> None:
    for command in COMMANDS:
        assert f"# capt {command.name}\n" in pages["command_line"]
        assert f"### capt.{command.function}\n" in pages["python_api"]
        assert re.search(rf"## capt {command.name}\n\n\S", pages["json_output"])
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", pages["exit_codes"], re.MULTILINE)] == list(ExitCode)
