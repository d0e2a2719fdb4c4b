"""Every capt command in the documentation is one that the command line understands."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import capt

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if "generated" not in p.parts),
]
_BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.strip()) for line in lines if re.match(r"\s*(\$ )?capt ", line)]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_documented_command_is_understood(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(capt.application())
    end = next((position for position, word in enumerate(words) if word in (">", "|", "&&")), len(words))
    rest = words[words.index("capt") + 1 : end]
    while hasattr(command, "commands"):
        if rest[0].startswith("-"):
            assert rest[0] in {name for parameter in command.params for name in parameter.opts}
            return
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context("capt", rest)


def test_make_targets_in_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for page in PAGES
        for block in _BLOCK.findall(page.read_text(encoding="utf-8"))
        for word in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE)
    }
    assert named
    assert named <= targets
