"""Files are opened, and what is no file is refused without waiting."""

import os
from pathlib import Path

import pytest

from features.inputs import FileReference
from features.io.open_files import open_file
from schemas.errors import RecordError


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        open_file(str(tmp_path / "pipe"))
    with pytest.raises(RecordError) as caught:
        FileReference(str(tmp_path / "pipe")).read_start(4)
    assert caught.value.reason == "unreadable"


def test_a_device_is_refused() -> None:
    with pytest.raises(OSError, match="device"):
        open_file(os.devnull)


def test_a_link_to_a_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    with open_file(str(tmp_path / "link")) as file:
        assert file.read() == b"abc"
