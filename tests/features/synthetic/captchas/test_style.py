"""The words and fonts of CAPTCHAs come from the package or from the user's files; their difficulty is checked."""

import re
import shutil
from pathlib import Path

import pytest

from features.synthetic.captchas.style import (
    CHARACTERS,
    DEFAULT_FONTS,
    CaptchaStyle,
    find_default_fonts,
    list_fonts,
    load_default_words,
    parse_num_strokes,
    read_words,
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
    assert [Path(font).name for font in list_fonts(tmp_path)] == ["C.TTF", "a.otf", "b.ttf"]


def test_a_directory_without_fonts_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"no \.ttf or \.otf file"):
        list_fonts(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        list_fonts(tmp_path / "none")


def test_a_file_that_is_not_a_font_is_an_error_with_its_path(tmp_path):
    (tmp_path / "a.ttf").write_text("not a font")
    with pytest.raises(UsageError, match=r"a\.ttf: not a font"):
        list_fonts(tmp_path)


def test_a_font_that_is_replaced_is_checked_again(tmp_path):
    shutil.copy(find_default_fonts()[0], tmp_path / "a.ttf")
    list_fonts(tmp_path)
    (tmp_path / "a.ttf").write_text("not a font")
    with pytest.raises(UsageError, match=r"a\.ttf: not a font"):
        list_fonts(tmp_path)


def test_a_font_without_the_characters_is_an_error_with_its_path(tmp_path):
    shutil.copy(find_default_fonts(["STIXSizFiveSymReg"])[0], tmp_path / "symbols.ttf")
    with pytest.raises(UsageError, match=r"symbols\.ttf: the font lacks abc"):
        list_fonts(tmp_path)


def test_there_are_2500_default_words_of_three_to_five_letters():
    words = load_default_words()
    assert len(words) == len(set(words)) == 2500
    assert all(re.fullmatch("[a-z]{3,5}", word) for word in words)
    assert set("".join(words)) == set(CHARACTERS)
    assert {len(word) for word in words} == {3, 4, 5}


def test_the_default_words_include_null_and_repeated_letters():
    words = load_default_words()
    assert {"null", "book", "www", "brrr", "zzz"} <= set(words)
    assert sum(bool(re.search(r"(.)\1", word)) for word in words) > 200


def test_a_word_list_is_read_in_its_order(tmp_path):
    (tmp_path / "words.txt").write_text("null\nabc\n")
    assert read_words(tmp_path / "words.txt") == ("null", "abc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("abc\nAbc\n", "line 2: 'Abc' is not three to five letters"),
        ("abc\n\n", "line 2: ''"),
        ("ab\n", "line 1: 'ab'"),
        ("abcdef\n", "line 1: 'abcdef'"),
        ("nöö\n", "line 1: 'nöö'"),
        ("abc\nabd\nabc\n", "line 3: 'abc' is repeated"),
    ],
)
def test_an_invalid_word_list_is_an_error_with_the_line(tmp_path, text, message):
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_words(tmp_path / "words.txt")


def test_a_missing_or_binary_word_list_is_an_error(tmp_path):
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\0")
    for name in ("words.txt", "other.txt"):
        with pytest.raises(UsageError, match="cannot read the file"):
            read_words(tmp_path / name)


def test_two_numbers_of_strokes_are_parsed():
    assert parse_num_strokes("0,4") == (0, 4)


@pytest.mark.parametrize("text", ["4", "0-4", "0, 4", "-1,4", "a,b"])
def test_other_texts_are_no_numbers_of_strokes(text):
    with pytest.raises(UsageError, match=r"--num-strokes: got .*Separate two numbers by a comma"):
        parse_num_strokes(text)


@pytest.mark.parametrize(
    ("difficulty", "message"),
    [({"num_strokes": (5, 4)}, "--num-strokes: got 5,4"), ({"num_strokes": (0, 101)}, "--num-strokes: got 0,101")]
    + [({"width": value}, f"--width: got {value}") for value in (99, 601)]
    + [({"height": value}, f"--height: got {value}") for value in (99, 321)]
    + [({"max_rotation": value}, f"--max-rotation: got {value}") for value in (-1, 91)],
)
def test_a_difficulty_or_size_out_of_range_is_rejected(difficulty, message):
    with pytest.raises(UsageError, match=message):
        CaptchaStyle(("cat",), (), **difficulty)
