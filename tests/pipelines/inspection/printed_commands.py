"""Calls `capt inspect` and parses the commands that it prints."""

import shlex
from pathlib import Path
from typing import Any

import typer

import capt
from schemas.options.commands import COMMANDS
from tests.conftest import noise_image


def inspect(*paths: str | Path, **options: Any) -> list[dict[str, Any]]:
    """The candidates for paths."""
    return capt.inspect(paths=[str(path) for path in paths], **options)["candidates"]  # type: ignore[no-any-return]


def parse(line: str) -> Any:
    """The options of a printed command, as the command line reads them."""
    words = shlex.split(line)
    assert words[:2] == ["capt", "prepare"]
    group: Any = typer.main.get_command(capt.application())
    command = group.commands["prepare"].commands[words[2]]
    given = command.make_context("capt", words[3:]).params
    options = next(one.options for one in COMMANDS if one.name == f"prepare {words[2]}")
    return options.parse({key: value for key, value in given.items() if key in options.model_fields and value})


def names(directory: Path, *images: str) -> Path:
    """A directory with images of these names."""
    for number, name in enumerate(images):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_image(number, 32, 24).save(path)
    return directory
