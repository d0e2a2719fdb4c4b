"""The tests that a page names, as `tests/…/test_x.py::test_y`."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT

NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def find_named_tests(page: Path) -> list[tuple[str, str]]:
    """Returns file and name of each test; the name is empty if the page names a whole file."""
    return NAMED_TEST.findall(page.read_text(encoding="utf-8"))


@cache
def read_test_names(path: str) -> frozenset[str]:
    """Returns the functions and classes of a test file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))
