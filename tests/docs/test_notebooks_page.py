"""The rows of docs/reference/notebooks.md name commands, calls, hyperparameters and tests that exist."""

import ast
import inspect
import re
import shlex
from dataclasses import dataclass
from functools import cache
from typing import TypeGuard

import pytest
import yaml

import capt
from schemas.frozen import Settings
from schemas.options.base import Argument, Options
from schemas.options.commands import COMMANDS
from tests.docs.named_tests import NAMED_TEST, read_test_names
from tests.docs.option_values import check_value
from tests.docs.pages import ROOT
from trainer.config import CaptionerTraining, RecognizerTraining
from trainer.models import configs

PAGE = ROOT / "docs" / "reference" / "notebooks.md"
HEADER = "| in the notebooks | where | in capt | test |"
COMMON_OPTIONS = {"json", "quiet", "debug", "log_file", "config"}
# The modules whose methods the page calls.
METHODS = ("features/store", "trainer/runs", "trainer/training")
CONFIGS: list[type[Settings]] = [
    CaptionerTraining,
    RecognizerTraining,
    *(kind for kind in vars(configs).values() if inspect.isclass(kind) and issubclass(kind, configs.ModelConfig)),
]
_CODE = re.compile(r"`([^`]+)`")
_VARIABLES = re.compile(r"^(?:[A-Z_]+=\S+ )+")
_LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)(?:#[\w-]+)?\)")


@dataclass(frozen=True)
class Row:
    """One row of the page."""

    action: str
    where: str
    capt: str
    test: str


def read_rows() -> list[Row]:
    rows, inside = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        inside = line.startswith("|") and (inside or line == HEADER)
        if inside and line != HEADER and not line.startswith("|---"):
            rows.append(Row(*[cell.strip() for cell in line.strip("|").split("|")]))
    return rows


ROWS = read_rows()
CODE = [code for row in ROWS for code in _CODE.findall(row.capt)]


def check_command(text: str) -> None:
    words = shlex.split(text)[1:]
    (command,) = (one for one in COMMANDS if words[: len(one.name.split())] == one.name.split())
    rest, fields = words[len(command.name.split()) :], command.options.model_fields
    while rest:
        word = rest.pop(0)
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            assert has_argument(command.options)
        elif name not in COMMON_OPTIONS and fields[name].annotation is not bool:
            value = rest.pop(0)
            check_value(fields[name], (value,) if fields[name].annotation == tuple[str, ...] else value)


def has_argument(options: type[Options]) -> bool:
    return any(isinstance(described, Argument) for _, _, described in options.declared())


def check_call(text: str) -> None:
    for node in ast.walk(ast.parse(text, mode="eval")):
        if isinstance(node, ast.Attribute) and not is_public(node):
            assert node.attr in method_names()
        elif isinstance(node, ast.Call) and is_public(node.func):
            keywords = {str(keyword.arg): keyword.value for keyword in node.keywords}
            inspect.signature(getattr(capt, node.func.attr)).bind_partial(*node.args, **keywords)


def is_public(node: ast.expr) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "capt"


@cache
def method_names() -> frozenset[str]:
    names = set()
    for folder in METHODS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    names.add(node.name)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    names.add(node.target.id)
    return frozenset(names)


def check_hyperparameter(text: str) -> None:
    ((name, value),) = yaml.safe_load(text).items()
    known = [kind for kind in CONFIGS if name in kind.model_fields]
    assert known
    for kind in known:
        assert getattr(kind(**{name: value}), name) is not None


def test_the_page_has_a_row_for_everything_that_the_notebooks_do() -> None:
    assert len(ROWS) >= 160
    assert len({(row.action, row.where) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.action)
def test_every_row_names_its_notebooks_capts_way_and_a_test(row: Row) -> None:
    assert row.action
    assert set(row.where.split(", ")) <= set("ABCDE")
    assert _CODE.search(row.capt) or _LINK.search(row.capt)
    assert NAMED_TEST.search(row.test)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.action)
def test_the_test_of_a_row_exists(row: Row) -> None:
    for path, name in NAMED_TEST.findall(row.test):
        assert name in read_test_names(path)


@pytest.mark.parametrize("code", sorted(set(CODE)))
def test_a_command_call_or_hyperparameter_of_the_page_exists(code: str) -> None:
    text = _VARIABLES.sub("", code)
    if text.startswith("capt "):
        check_command(text)
    elif text.startswith("capt."):
        check_call(text)
    else:
        check_hyperparameter(text)


def test_the_files_that_the_page_links_to_exist() -> None:
    for link in _LINK.findall(PAGE.read_text(encoding="utf-8")):
        assert "generated/" in link or (PAGE.parent / link).exists(), link
