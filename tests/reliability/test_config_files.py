"""A YAML file that is not what it seems is wrong usage, in one line, whatever command reads it."""

from pathlib import Path

import pytest

import capt
from schemas.errors import UsageError
from schemas.settings import MAX_BYTES, read_settings

WRONG = {
    "nested deeply": b"a: " + b"[" * 3000 + b"]" * 3000,
    "a key twice": b"a: 1\nb: 2\na: 3\n",
    "a nested key twice": b"a:\n  b: 1\n  b: 2\n",
    "aliases": b"a: &a [1, 2]\nb: [*a, *a]\n",
    "not UTF-8": b"a: \xff\n",
    "a NUL byte": b"a: \0\n",
    "a tab": b"a:\n\tb: 1\n",
    "too large": b"a: " + b"x" * MAX_BYTES,
    "a list": b"- a\n",
    "an impossible date": b"a: 2020-13-45\n",
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("read", [read_settings, capt.retrain, capt.experiment_run])
def test_a_wrong_file_is_wrong_usage(tmp_path: Path, content: bytes, read: object) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read(str(path))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_equal_keys_of_different_mappings_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: {x: 1}\nb: [{x: 2}, {x: 3}]\nx: 4\n")
    assert read_settings(path) == {"a": {"x": 1}, "b": [{"x": 2}, {"x": 3}], "x": 4}
