import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.text.captcha_names import parse_image_number, parse_label_line, parse_line_number
from schemas.errors import UsageError
from trainer.data.label_file import read_label_file


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
        ("a0 thus\na1\n", r"truth.txt:2: not `ID LABEL`: .*'a1'"),
        ("a0  thus\n", "truth.txt:1: not"),
        ("a0 thus \n", "truth.txt:1: not"),
        ("a01 thus\n", "the lines have no image names"),
        ("a0 thus\n\n\na1  fail\n", "truth.txt:4: not"),
        ("a0 thus\na0 thus\n", "truth.txt:2: repeats a0"),
    ],
)
def test_an_invalid_line_is_named(tmp_path, text, fault):
    with pytest.raises(UsageError, match=fault):
        read_label_file(truth(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("truth.csv", "filename,text\nx/a.png,007\nb.jpg,null\n"),
        ("truth.tsv", "label\timage\n007\tx/a.png\nnull\tb.jpg\n"),
        ("truth.jsonl", '{"image": "x/a.png", "label": "007"}\n{"image": "b.jpg", "label": "null"}\n'),
        ("truth.txt", "x/a.png 007\nb.jpg null\n"),
    ],
)
def test_a_table_names_images_by_their_ids(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_label_file(tmp_path / name) == {"x/a.png": "007", "b.jpg": "null"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("image,label\na.png,x\na.png,x\n", r"truth\.csv:3: repeats a\.png"),
        ("image,label\na.png\n", r"truth\.csv:2: too few columns"),
        ("image,label\na.png,\n", r"truth\.csv:2: a\.png: no label"),
        ("image,other\na.png,x\n", r"truth\.csv: no column with a usual name for the label"),
        ("image,label\n", "the file contains no label"),
    ],
)
def test_an_invalid_row_is_named(tmp_path, text, fault):
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(UsageError, match=fault):
        read_label_file(tmp_path / "truth.csv")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--labels .*none.txt: the file cannot be read"):
        read_label_file(tmp_path / "none.txt")


@given(st.integers(0, 10**15 - 1), st.text("abcXYZ09éя", min_size=1), st.sampled_from(" \t"))
def test_a_label_line_has_a_number_and_a_word(number, word, separator):
    assert parse_label_line(f"a{number}{separator}{word}") == (number, word, separator)
    assert parse_line_number(f"a{number}{separator}{word}") == number
    assert parse_image_number(f"words_captcha/a{number}.png") == number


@pytest.mark.parametrize("name", ["a01.png", "b1.png", "a1.jpg", "xa1.png", "a1.png.png", "a.png", "a-1.png"])
def test_other_names_have_no_number(name):
    assert parse_image_number(name) is None
