"""docs/explanation/guarantees.md names tests that exist."""

import pytest

from tests.docs.named_tests import NAMED_TEST, find_named_tests, read_test_names
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "guarantees.md"


@pytest.mark.parametrize(("path", "name"), find_named_tests(PAGE))
def test_a_test_that_the_page_names_exists(path: str, name: str) -> None:
    assert {name} - {""} <= read_test_names(path)


def test_every_row_of_the_page_names_a_test() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|") and not line.startswith(("| guarantee", "|---"))]
    assert [row for row in rows if not NAMED_TEST.search(row)] == []
