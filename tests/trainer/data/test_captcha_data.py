import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.text.captcha_names import parse_image_number, parse_label_line, parse_line_number
from schemas.errors import UsageError
from trainer.data.captcha_data import read_label_file


def truth(tmp_path, text):
    path = tmp_path / "truth.txt"
    path.write_bytes(text.encode())
    return path


def test_labels_are_read_by_image_id(tmp_path):
    assert read_label_file(truth(tmp_path, "a0 thus\na120000 null\n")) == {"a0": "thus", "a120000": "null"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_line_ends_and_blank_lines_do_not_matter(tmp_path, encoding, line_end):
    path = tmp_path / "truth.txt"
    path.write_bytes(line_end.join(["a0 thus", "", "a1\tfail", " "]).encode(encoding))
    assert read_label_file(path) == {"a0": "thus", "a1": "fail"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file contains no labels"),
        ("a0 thus\na1\n", "line 2 is 'a1'"),
        ("a0  thus\n", "line 1 is"),
        ("a0 Thus\n", "line 1 is"),
        ("a0 thus \n", "line 1 is"),
        ("a01 thus\n", "line 1 is"),
        ("a0 thus\n\n\na1  fail\n", "line 4 is"),
        ("a0 thus\na0 thus\n", "line 2 repeats a0"),
    ],
)
def test_an_invalid_line_is_named(tmp_path, text, fault):
    with pytest.raises(UsageError, match=fault):
        read_label_file(truth(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--labels .*none.txt: the file cannot be read"):
        read_label_file(tmp_path / "none.txt")


@given(st.integers(0, 10**15 - 1), st.text("abcxyz", min_size=1), st.sampled_from(" \t"))
def test_a_label_line_has_a_number_and_a_word(number, word, separator):
    assert parse_label_line(f"a{number}{separator}{word}") == (number, word, separator)
    assert parse_line_number(f"a{number}{separator}{word}") == number
    assert parse_image_number(f"words_captcha/a{number}.png") == number


@pytest.mark.parametrize("name", ["a01.png", "b1.png", "a1.jpg", "xa1.png", "a1.png.png", "a.png", "a-1.png"])
def test_other_names_have_no_number(name):
    assert parse_image_number(name) is None
