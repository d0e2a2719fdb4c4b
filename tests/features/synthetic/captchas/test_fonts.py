"""Fonts of CAPTCHAs: those that come with an installed package, and a directory of one's own."""

import shutil
from pathlib import Path

import pytest

from features.synthetic.captchas import DEFAULT_FONTS, find_default_fonts, list_fonts
from schemas.errors import UsageError


def test_four_fonts_come_with_an_installed_package():
    assert len(set(find_default_fonts())) == 4
    assert [Path(font).stem for font in find_default_fonts()] == list(DEFAULT_FONTS)
    assert all(Path(font).is_file() for font in find_default_fonts())


def test_every_font_of_a_directory_is_taken_by_name(tmp_path):
    for name in ("b.ttf", "a.otf", "C.TTF"):
        shutil.copy(find_default_fonts()[0], tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a font")
    assert [Path(font).name for font in list_fonts(tmp_path)] == ["C.TTF", "a.otf", "b.ttf"]


def test_a_directory_without_fonts_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match=r"no \.ttf or \.otf file"):
        list_fonts(tmp_path)
    with pytest.raises(UsageError, match="no such directory"):
        list_fonts(tmp_path / "none")


def test_a_file_that_is_no_font_is_named(tmp_path):
    (tmp_path / "a.ttf").write_text("not a font")
    with pytest.raises(UsageError, match=r"a\.ttf: not a font"):
        list_fonts(tmp_path)


def test_a_font_without_letters_is_named(tmp_path):
    shutil.copy(find_default_fonts(["STIXSizFiveSymReg"])[0], tmp_path / "symbols.ttf")
    with pytest.raises(UsageError, match=r"symbols\.ttf: the font lacks abc"):
        list_fonts(tmp_path)
