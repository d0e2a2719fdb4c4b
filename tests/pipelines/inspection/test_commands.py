"""The commands that `capt inspect` prints name the paths of the user, whatever their names."""

import os
import subprocess
from pathlib import Path

import pytest

import capt
from pipelines.inspection.commands import join_command
from schemas.errors import UsageError
from tests.pipelines.inspection.printed_commands import inspect, names, parse


def test_a_directory_of_the_name_of_a_placeholder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names(tmp_path / "DIR", "long_name_1.jpg")
    monkeypatch.chdir(tmp_path)
    (found,) = inspect("DIR")
    assert (parse(found["commands"][0]).images, found["placeholders"]) == (("DIR",), {})


def test_a_path_that_is_named_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names(tmp_path / "plain", "long_name_1.jpg")
    monkeypatch.chdir(tmp_path)
    (found,) = inspect("plain", "./plain", tmp_path / "plain/")
    assert len(parse(found["commands"][0]).images) == 1
    (tmp_path / "captions.csv").write_text("image,caption\nlong_name_1.jpg,A dog runs.\n")
    (found,) = inspect(".", "captions.csv")
    assert len(parse(found["commands"][1]).annotations) == 1


def test_words_that_cannot_be_printed_reach_the_shell_unchanged() -> None:
    words = ["printf", "%s\\n", "a b", "\x1b[31m", "it's\n\\", "\u202ebidirectional\u0085", "ä"]
    command = join_command(words)
    assert command.isprintable()
    printed = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
    assert printed.decode() == "".join(f"{word}\n" for word in words[2:])


def test_only_types_that_expand_patterns_are_offered_for_one(tmp_path: Path) -> None:
    """The first file is looked at, and the others may be missing."""
    (tmp_path / "0.csv").write_text("image,caption\na.jpg,A dog runs.\n")
    (tmp_path / "a0.csv").write_text("url,caption\nhttps://example.com/1.jpg,A dog\n")
    with pytest.raises(UsageError):
        inspect(tmp_path / "{0..1}.csv")
    with pytest.raises(UsageError):
        inspect(tmp_path / "missing{0..1}.csv")
    pattern = str(tmp_path / "a{0..1}.csv")
    found = capt.inspect(paths=[pattern])
    assert (found["paths"][0]["files"], found["paths"][0]["complete"]) == (1, False)
    assert parse(found["candidates"][0]["commands"][1]).annotations == (pattern,)


def test_a_pipe_and_a_name_that_is_too_long_are_wrong_usage(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", tmp_path / ("long" * 100)):
        with pytest.raises(UsageError):
            inspect(path)
