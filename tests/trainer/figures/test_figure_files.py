"""Figures are written in the format of the suffix, and notebooks show them."""

from io import BytesIO
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from schemas.errors import UsageError
from trainer.figures.figure_files import InlineFigure, save_figure


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


def test_a_notebook_shows_an_inline_figure_as_png():
    assert Image.open(BytesIO(figure(InlineFigure)._repr_png_())).size == (660, 440)
