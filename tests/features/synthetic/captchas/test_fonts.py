"""The fonts of CAPTCHAs come from Matplotlib or from a directory; those that lack a character are skipped by name."""

import shutil
from pathlib import Path
from string import ascii_lowercase

import pytest

from features.synthetic.captchas import fonts as module
from features.synthetic.captchas.fonts import (
    DEFAULT_FONTS,
    check_shaping,
    find_default_fonts,
    list_fonts,
    select_default_fonts,
)
from schemas.errors import UsageError


def test_there_are_four_default_fonts():
    assert len(set(find_default_fonts())) == 4
    assert [Path(font).stem for font in find_default_fonts()] == list(DEFAULT_FONTS)
    assert all(Path(font).is_file() for font in find_default_fonts())


def test_the_fonts_of_a_directory_are_sorted_by_name(tmp_path):
    for name in ("b.ttf", "a.otf", "C.TTF"):
        shutil.copy(find_default_fonts()[0], tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a font")
    assert [Path(font).name for font in list_fonts(tmp_path, ascii_lowercase).files] == ["C.TTF", "a.otf", "b.ttf"]


def test_a_directory_without_fonts_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"no \.ttf or \.otf file"):
        list_fonts(tmp_path, ascii_lowercase)
    with pytest.raises(UsageError, match="does not exist"):
        list_fonts(tmp_path / "none", ascii_lowercase)


def test_a_file_that_is_not_a_font_is_an_error_with_its_path(tmp_path):
    (tmp_path / "a.ttf").write_text("not a font")
    with pytest.raises(UsageError, match=r"a\.ttf: not a font"):
        list_fonts(tmp_path, ascii_lowercase)


def test_a_font_that_is_replaced_is_checked_again(tmp_path):
    shutil.copy(find_default_fonts()[0], tmp_path / "a.ttf")
    list_fonts(tmp_path, ascii_lowercase)
    (tmp_path / "a.ttf").write_text("not a font")
    with pytest.raises(UsageError, match=r"a\.ttf: not a font"):
        list_fonts(tmp_path, ascii_lowercase)


def test_a_font_without_the_characters_is_an_error_with_its_path(tmp_path):
    shutil.copy(find_default_fonts(["STIXSizFiveSymReg"])[0], tmp_path / "symbols.ttf")
    with pytest.raises(UsageError, match=r"symbols\.ttf: the font lacks abc"):
        list_fonts(tmp_path, ascii_lowercase)


def test_a_font_that_lacks_a_character_is_skipped_with_its_reason(tmp_path):
    for name in ("DejaVuSans", "STIXSizFiveSymReg"):
        shutil.copy(find_default_fonts([name])[0], tmp_path)
    selected = list_fonts(tmp_path, "ab")
    assert [Path(font).stem for font in selected.files] == ["DejaVuSans"]
    assert selected.skipped == {str(tmp_path / "STIXSizFiveSymReg.ttf"): "the font lacks ab"}


def test_a_character_that_no_font_has_is_named(tmp_path):
    shutil.copy(find_default_fonts(["DejaVuSans"])[0], tmp_path)
    with pytest.raises(UsageError, match=r"no font has all .*; DejaVuSans\.ttf: the font lacks 漢"):
        list_fonts(tmp_path, "a漢")
    with pytest.raises(UsageError, match=r"--font-dir: no font .* the font lacks 漢"):
        select_default_fonts("a漢")


def test_default_fonts_are_those_that_have_the_characters():
    assert select_default_fonts("az09").files == find_default_fonts()
    assert [Path(font).stem for font in select_default_fonts("жя").files] == list(DEFAULT_FONTS[1::2])
    # TeX's fonts have £ at the code point of $.
    assert [Path(font).stem for font in select_default_fonts("$").files] == list(DEFAULT_FONTS[1::2])
    assert "DejaVuSans" in {Path(font).stem for font in select_default_fonts("א").files}


def test_right_to_left_scripts_require_raqm(monkeypatch):
    check_shaping()
    monkeypatch.setattr(module.pillow_features, "check", lambda name: False)
    with pytest.raises(UsageError, match="lacks Raqm, which draws right-to-left scripts"):
        check_shaping()
