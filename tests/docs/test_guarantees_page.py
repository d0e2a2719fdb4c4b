"""docs/explanation/guarantees.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def _named_tests() -> list[tuple[str, str]]:
    return _TEST.findall((ROOT / "docs" / "explanation" / "guarantees.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("path", "name"), _named_tests())
def test_a_test_that_the_page_names_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert not name or name in functions | classes


def test_every_row_of_the_page_names_a_test() -> None:
    lines = (ROOT / "docs" / "explanation" / "guarantees.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|") and not line.startswith(("| guarantee", "|---"))]
    assert [row for row in rows if not _TEST.search(row)] == []
