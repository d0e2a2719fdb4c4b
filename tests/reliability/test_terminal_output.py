"""Text from outside cannot steer a terminal."""

import json
import os
import pty
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.terminal.printable import printable
from tests.commands import CommandServer
from tests.conftest import noise_image

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


@given(st.text(st.characters(categories=None)))
def test_printable_text_has_no_control_character_and_every_encoding_has_it(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert all(c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in shown)
    assert printable(shown) == shown


def _is_clean(text: str) -> bool:
    return all(c == "\n" or (c >= " " and not "\x7f" <= c <= "\x9f" and c != "\u202e") for c in text)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{HOSTILE}.jpg", b"not an image")
        archive.writestr("a.jpg", b"not an image either")
    return path


def test_hostile_names_are_escaped_in_all_output(commands: CommandServer, tmp_path: Path, archive: Path) -> None:
    (tmp_path / "keys.yaml").write_text(f'"{HOSTILE.encode("unicode_escape").decode()}": 1\n')
    images = [
        "--dataset-type",
        "folder",
        "--images",
        str(archive),
        "--extractor",
        "pixels",
        "--height",
        "8",
        "--width",
        "8",
    ]
    stores, retraining = ["store", "ls", f"{tmp_path}/{HOSTILE}"], ["retrain", str(tmp_path / "keys.yaml")]
    # What --debug says, it says besides.
    preparing = ["prepare", "features", "--store", f"{tmp_path}/s", *images, "--debug"]
    for command in (stores, retraining, [*stores, "--debug"], [*retraining, "--debug"], preparing):
        done = commands.capt(*command, cwd=tmp_path)
        assert done.returncode == (3 if command == preparing else 2 if "retrain" in command else 1), done.stderr
        assert done.stderr
        assert _is_clean(done.stdout)
        assert _is_clean(done.stderr)


def _run_on_terminal(commands: CommandServer, command: list[str], cwd: Path) -> tuple[int, bytes]:
    """Exit code and output of a command that runs on a terminal."""
    own, terminal = pty.openpty()
    name = os.ttyname(terminal)
    environment = {"TERM": "xterm-256color", "COLUMNS": "200"}
    process = commands.start(command, stdin=name, stdout=name, stderr=name, cwd=cwd, environment=environment)
    with ThreadPoolExecutor() as pool:
        code = pool.submit(process.wait)
        code.add_done_callback(lambda _: os.close(terminal))
        output = b"".join(iter(lambda: _read(own), b""))
    os.close(own)
    return code.result(), output


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end is closed
        return b""


# What a table on a terminal is made of: colors, and the movements of a line that is written again.
_OWN_SEQUENCES = re.compile(rb"\x1b\[[0-9;]*[mKABG]|\x1b\[\?25[hl]|[\r\n]")


def test_hostile_names_are_escaped_on_a_terminal(commands: CommandServer, tmp_path: Path) -> None:
    store, images = tmp_path / f"s{HOSTILE}", tmp_path / f"i{HOSTILE}"
    images.mkdir()
    for number in range(2):
        noise_image(number).save(images / f"{number}{HOSTILE}.png")
    pixels = ["--extractor", "pixels", "--height", "8", "--width", "8"]
    prepare = [
        "prepare",
        "features",
        "--store",
        str(store),
        "--dataset-type",
        "folder",
        "--images",
        str(images),
        *pixels,
    ]
    for command in (
        prepare,
        ["store", "ls", str(store)],
        ["store", "verify", str(store)],
        ["store", "show", str(store), "--dataset", HOSTILE],
    ):
        status, output = _run_on_terminal(commands, command, tmp_path)
        assert status == (1 if command[-1] == HOSTILE else 0), output
        text = _OWN_SEQUENCES.sub(b"", output).decode()
        assert "owned" not in text or "\\x1b]0;owned" in text
        assert all(c >= " " and not "\x7f" <= c <= "\x9f" and c != "\u202e" for c in text), output


def test_json_of_hostile_names_has_no_control_character_and_keeps_the_names(
    commands: CommandServer, tmp_path: Path
) -> None:
    images = tmp_path / f"i{HOSTILE}"
    images.mkdir()
    noise_image(1).save(images / "a.png")
    pixels = ["--extractor", "pixels", "--height", "8", "--width", "8", "--json"]
    store = str(tmp_path / f"s{HOSTILE}")
    command = ["prepare", "features", "--store", store, "--dataset-type", "folder", "--images", str(images), *pixels]
    done = commands.capt(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert _is_clean(done.stdout)
    assert done.stdout.isascii()
    assert HOSTILE in json.loads(done.stdout)["report"]
    shown = commands.capt("store", "stats", store, "--json")
    assert _is_clean(shown.stdout)
    assert json.loads(shown.stdout)["store"] == store
