"""Brace patterns are expanded as a shell does."""

import pytest

from features.io.brace_patterns import expand_braces


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("{8..10}.tar", ["8.tar", "9.tar", "10.tar"]),
        ("{0..10..x}", ["{0..10..x}"]),
        ("{0..2}", ["0", "1", "2"]),
        ("{0..10}", [str(number) for number in range(11)]),
        ("{008..010}", ["008", "009", "010"]),
        ("{00..2}", ["00", "01", "02"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("x", ["x"]),
    ],
)
def test_ranges_and_lists_are_expanded_in_order(pattern: str, paths: list[str]) -> None:
    assert expand_braces(pattern) == paths
