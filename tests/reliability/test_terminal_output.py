"""Text from outside cannot steer a terminal."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.printing import printable

CAPT = Path(sys.executable).with_name("capt")
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


@given(st.text(st.characters(categories=None)))
def test_printable_text_has_no_control_character_and_every_encoding_has_it(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert all(c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in shown)
    assert printable(shown) == shown


def _is_clean(output: bytes) -> bool:
    text = output.decode()
    return all(c == "\n" or (c >= " " and not "\x7f" <= c <= "\x9f" and c != "\u202e") for c in text)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{HOSTILE}.jpg", b"not an image")
        archive.writestr("a.jpg", b"not an image either")
    return path


def test_hostile_names_are_escaped_in_all_output(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "keys.yaml").write_text(f'"{HOSTILE.encode("unicode_escape").decode()}": 1\n')
    images = ["--dataset", "folder", "--images", str(archive), "--extractor", "pixels", "--height", "8", "--width", "8"]
    stores, retraining = ["store", "ls", f"{tmp_path}/{HOSTILE}"], ["retrain", str(tmp_path / "keys.yaml")]
    # What --debug says, it says besides.
    preparing = ["prepare", "features", "--store", f"{tmp_path}/s", *images, "--debug"]
    for command in (stores, retraining, [*stores, "--debug"], [*retraining, "--debug"], preparing):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run([CAPT, *command], capture_output=True, env=environment, check=False, cwd=tmp_path)
        assert done.returncode in (1, 2, 3)
        assert done.stderr
        assert _is_clean(done.stdout)
        assert _is_clean(done.stderr)
