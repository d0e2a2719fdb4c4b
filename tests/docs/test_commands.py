"""The command line and the benchmarks accept every command of the documentation, also those that no test runs."""

import argparse
import re
import runpy
import shlex
import sys
from typing import Any

import pytest
import typer

import capt
from schemas.options import commands
from tests.docs.option_values import check_value
from tests.docs.pages import CODE, ROOT

OPTIONS = {command.name: command.options for command in commands.COMMANDS}
COMMANDS = [(page, code.text) for page, codes in CODE.items() for code in codes if code.language == "bash"]


@pytest.mark.parametrize(("page", "line"), [one for one in COMMANDS if re.search(r"(^| )capt ", one[1])])
def test_a_documented_command_is_understood(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(capt.application())
    end = next((position for position, word in enumerate(words) if word in (">", "|", "&&")), len(words))
    rest = words[words.index("capt") + 1 : end]
    names = []
    while hasattr(command, "commands"):
        if rest[0].startswith("-"):
            assert rest[0] in {name for parameter in command.params for name in parameter.opts}
            return
        name, command, rest = command.resolve_command(typer.Context(command), rest)
        names.append(name)
    fields = OPTIONS[" ".join(names)].model_fields
    for name, value in command.make_context("capt", rest).params.items():
        if name in fields and value not in (None, False, []):
            check_value(fields[name], value)


@pytest.mark.parametrize(("page", "line"), [one for one in COMMANDS if "python benchmarks/" in one[1]])
def test_a_documented_benchmark_accepts_its_arguments(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line, comments=True)
    program, *arguments = words[words.index("python") + 1 :]
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(*given: Any) -> None:
        parse(*given)
        sys.exit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.syspath_prepend((ROOT / program).parent)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / program), run_name="__main__")
    assert caught.value.code == 0


def test_make_targets_in_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for _, line in COMMANDS if line.startswith("make ")}
    assert named
    assert named <= targets
