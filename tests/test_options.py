"""Options are declared once: the command line, Python and the functions that run commands agree."""

import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import capt
from schemas.errors import UsageError
from schemas.options.commands import COMMANDS, Command
from schemas.options.training import TrainCaptcha, TrainCaptioner
from schemas.terminal.summary import print_summary
from trainer.task_registry import find_task

runner = CliRunner()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_runs_a_function_of_its_options(command: Command) -> None:
    module, _, name = command.runs.partition(":")
    function = getattr(importlib.import_module(module), name)
    (kind,) = [hint for key, hint in typing.get_type_hints(function).items() if key != "return"]
    assert kind is command.options


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_shows_every_option_of_the_python_function(command: Command) -> None:
    shown = runner.invoke(capt.application(), [*command.name.split(), "--help"], terminal_width=200).output
    parameters = inspect.signature(getattr(capt, command.function)).parameters
    assert {name for name, _, _ in command.options.declared()} == parameters.keys() - {"hyperparameters", "verbose"}
    assert ("verbose" in parameters) == command.name.startswith("train ")
    for _, _, described in command.options.declared():
        assert " ".join(described.help.split()[:3]) in " ".join(shown.split())


def test_the_usage_shows_required_arguments_without_brackets_and_types() -> None:
    for name, usage in (
        ("fetch", "[OPTIONS] NAME DIR"),
        ("evaluate", "[OPTIONS] [RUN]..."),
        ("prepare captions", "[OPTIONS] [BEAM_OPTIONS]..."),
    ):
        shown = runner.invoke(capt.application(), [*name.split(), "--help"]).output
        assert f"{name} {usage}\n" in shown
        assert "<" not in shown.partition("Options:")[0]


def test_options_that_were_not_given_take_the_defaults_of_the_model(tmp_path: Path) -> None:
    done = runner.invoke(capt.application(), ["store", "ls", str(tmp_path / "none"), "--json"])
    assert done.exit_code == 1


@pytest.mark.parametrize(
    "given",
    [
        {"stroe": "s"},
        {"store": "s", "dataset_type": "coco", "images": ["i"], "batch_size": 0},
        {"store": "s", "dataset_type": "imagenet", "images": ["i"]},
        {"store": "s", "dataset_type": "coco", "images": ["i"], "pooling": "max"},
        {"store": "s", "dataset_type": "coco"},
    ],
)
def test_a_wrong_option_is_wrong_usage_in_python(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        capt.prepare_features(**given)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("evaluate R --split foo", "capt: --split: expected 'train', 'val', 'test' or 'unused', got 'foo'."),
        ("prepare features --dataset-type kitti", "capt: --dataset-type: expected 'coco', "),
    ],
)
def test_a_value_that_is_not_offered_is_one_line_with_those_that_are(arguments: str, line: str) -> None:
    done = runner.invoke(capt.application(), arguments.split())
    assert done.exit_code == 2
    assert done.output.startswith(line)
    assert done.output.count("\n") == 1


def test_a_path_is_converted_to_text_and_a_text_to_a_list_of_one(tmp_path: Path) -> None:
    from schemas.options.prepare import PrepareFeatures

    options = PrepareFeatures.parse({"store": tmp_path, "dataset-type": "folder", "images": tmp_path / "images"})
    assert (options.store, options.images) == (str(tmp_path), (str(tmp_path / "images"),))


def test_a_summary_shows_counts_lists_and_parts_without_the_notation_of_python(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_summary({"images": 1500, "splits": {"train": 1200, "val": 300}, "files": ["a", "b"], "failed": []})
    printed = [line.split(maxsplit=1) for line in capsys.readouterr().err.splitlines()]
    assert [(key, value.strip()) for key, value in printed] == [
        ("images", "1,500"),
        ("splits", "train 1,200, val 300"),
        ("files", "a, b"),
    ]


def test_a_long_list_of_a_summary_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary({"failed_ids": [f"a{number}" for number in range(1500)]})
    printed = " ".join(capsys.readouterr().err.split())
    assert "a99, and 1,400 more" in printed
    assert "a100" not in printed


def test_the_version_is_shown() -> None:
    done = runner.invoke(capt.application(), ["--version"])
    assert (done.exit_code, done.output) == (0, f"capt {capt.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_of_an_option_names_each_of_its_choices(command: Command) -> None:
    for name, field, described in command.options.declared():
        for choice in _choices(field.annotation):
            assert re.search(rf"\b{choice}\b", described.help), f"--{name} {choice}"


def test_the_help_states_the_epochs_of_the_configs() -> None:
    helps = {
        one: described.help
        for one in (TrainCaptioner, TrainCaptcha)
        for n, _, described in one.declared()
        if n == "epochs"
    }
    assert f"[default: {find_task('captioner').parse(None, {}).training.epochs}, " in helps[TrainCaptioner]
    assert find_task("captcha").parse(None, {}).training.epochs is None
    assert "[default: depends on --profile and the number of train images]" in helps[TrainCaptcha]


def _choices(kind: Any) -> list[str]:
    """Returns the words of the literals in a type."""
    if typing.get_origin(kind) is typing.Literal:
        return [str(one) for one in typing.get_args(kind)]
    return [choice for one in typing.get_args(kind) for choice in _choices(one)]
