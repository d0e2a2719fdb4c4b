"""Reads the notebooks of the examples and their settings files."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import nbformat
import typer

import capt
from schemas.options.base import Options
from schemas.options.commands import COMMANDS
from schemas.yaml_file import read_settings

ROOT = Path(__file__).parents[3]
DIRECTORY = ROOT / "examples" / "notebooks"
NAMES = sorted(path.stem for path in DIRECTORY.glob("[a-e]_*.ipynb"))
# The variables that contain the options of a command.
VARIABLES = {
    "features": "prepare features",
    "captions": "prepare captions",
    "captcha": "prepare captcha",
    "sample": "synth sample",
}
PATHS = {"store", "dataset_type", "dataset_name", "images", "annotations", "labels", "output"}

_OPTIONS = {command.name: command.options for command in COMMANDS}


def read_notebook(name: str) -> Any:
    return nbformat.read(DIRECTORY / f"{name}.ipynb", as_version=4)


def read_cell(name: str, tag: str) -> str:
    """Returns the source of the only cell that has a tag."""
    (cell,) = [cell for cell in read_notebook(name).cells if tag in cell.metadata.get("tags", ())]
    return str(cell.source)


def read_literals(name: str, tag: str) -> dict[str, Any]:
    """Returns the variables that a cell sets outside of its conditions. Each value is a literal."""
    assigned = [statement for statement in ast.parse(read_cell(name, tag)).body if isinstance(statement, ast.Assign)]
    return {ast.unparse(one.targets[0]): ast.literal_eval(one.value) for one in assigned}


class NotebookSettings:
    """The settings file of a notebook: hyperparameters, below comments with the commands that use them."""

    def __init__(self, name: str) -> None:
        path = ROOT / "examples" / "configs" / f"notebook_{name[0]}.yaml"
        self.training = read_settings(path)
        comments = "\n".join(re.findall(r"(?m)^#(.*)$", path.read_text(encoding="utf-8")))
        self.commands = [
            " ".join(line.split()) for line in comments.replace("\\\n", " ").splitlines() if line.startswith("   capt ")
        ]

    @property
    def task(self) -> str:
        """What is trained: `captioner` or `captcha`."""
        (task,) = {line.split()[2] for line in self.commands if line.startswith("capt train ")}
        return task

    def prepare(self, command: str) -> Options:
        """Returns the options of the only line with a command, such as `prepare features`."""
        (line,) = [line for line in self.commands if line.startswith(f"capt {command} ")]
        parser: Any = typer.main.get_command(capt.application())
        for word in command.split():
            parser = parser.commands[word]
        given = parser.make_context("capt", shlex.split(line)[1 + len(command.split()) :]).params
        names = _OPTIONS[command].model_fields
        values = {name: given[name] for name in names if given[name] not in (None, []) and given[name] is not False}
        return _OPTIONS[command].parse(values)

    def hyperparameters(self) -> dict[str, Any]:
        """Returns all hyperparameters of the run by name, the defaults included."""
        _OPTIONS[f"train {self.task}"].parse({"store": "S", "run_dir": "R", **self.training})
        model = {} if self.task == "captioner" else {"model": "recognizer"}
        return dict(capt.config(**model, **self.training))


def parse_variable(variable: str, values: dict[str, Any], paths: Options) -> Options:
    """Returns the options that a notebook passes to a command, with the paths of the settings file."""
    given = paths.model_dump(include=PATHS, exclude_unset=True)
    return _OPTIONS[VARIABLES[variable]].parse({**given, **values})
