"""Figures are written in the format of the suffix, and notebooks show them."""

from io import BytesIO
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from schemas.errors import CaptError, UsageError
from trainer.figures.figure_files import InlineFigure, check_figure_path, save_figure


def figure(kind: type[Figure] = Figure) -> Figure:
    made = kind(figsize=(6, 4), layout="constrained")
    made.add_subplot().plot([1, 2], [3, 4])
    return made


def matplotlib_settings() -> dict[str, object]:
    return {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


def test_a_figure_is_saved_in_the_format_of_its_suffix_and_changes_no_setting(tmp_path: Path) -> None:
    before = matplotlib_settings()
    for suffix in ("png", "svg", "jpg"):
        save_figure(figure(), tmp_path / "deep" / f"loss.{suffix}")
    assert Image.open(tmp_path / "deep" / "loss.png").size == (660, 440)
    assert b"<svg" in (tmp_path / "deep" / "loss.svg").read_bytes()
    assert matplotlib_settings() == before
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["loss.jpg", "loss.png", "loss.svg"]


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.docx"):
        save_figure(figure(), tmp_path / "loss.docx")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("loss.docx", r"--output .*loss\.docx: \.docx is not an image format"),
        ("", "--output .*: this is a directory"),
    ],
)
def test_the_path_of_a_figure_is_checked_before_there_is_one(tmp_path, name, problem):
    with pytest.raises(UsageError, match=problem):
        check_figure_path(tmp_path / name, "--output")
    for name in ("loss.png", "loss.JPG", "loss"):
        assert check_figure_path(str(tmp_path / name), "--output") == tmp_path / name


def test_suffixes_that_matplotlib_does_not_know_may_be_accepted(tmp_path):
    path = tmp_path / "maps.GIF"
    assert check_figure_path(path, "--output", (".gif",)) == path


def test_a_figure_that_cannot_be_written_is_an_error_with_its_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptError, match=r"loss\.png: the image cannot be written: ."):
        save_figure(figure(), tmp_path / "file" / "loss.png")


def test_a_notebook_shows_an_inline_figure_as_png():
    assert Image.open(BytesIO(figure(InlineFigure)._repr_png_())).size == (660, 440)
