"""CAPTCHA labels are read exactly, and an unusable line fails its image only."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.text.label_rules import LabelRules
from pipelines.datasets.base import ImageEntry, ListedImage
from pipelines.datasets.captcha import CaptchaReader
from pipelines.datasets.label_sources import find_label_file
from pipelines.datasets.splits import SplitCounts, parse_split_sizes
from schemas.errors import CaptError, UsageError
from schemas.manifests import LabelFormat


def entries(directory: Path, labels: str | bytes, names: list[str] | int, **options) -> dict[str, ImageEntry]:
    """What becomes of images of these names, or of so many, by image id."""
    names = [f"words_captcha/a{number}.png" for number in range(names)] if isinstance(names, int) else names
    path = directory / "labels.txt"
    path.write_bytes(labels.encode() if isinstance(labels, str) else labels)
    found = list(
        CaptchaReader(find_label_file(str(path)), **options).read_listed_images(map(ListedImage, sorted(names)))
    )
    assert len({entry.image_id for entry in found}) == len(found)
    return {entry.image_id.replace(f"{path}:", "line "): entry for entry in found}


def faults(found: dict[str, ImageEntry]) -> dict[str, str]:
    return {image_id: entry.failure.reason for image_id, entry in found.items() if entry.failure}


def test_labels_come_from_the_lines_and_the_last_images_have_none(tmp_path):
    found = entries(tmp_path, "a0 thus\na1 null\na2 www\n", 5)
    assert {image_id: entry.label for image_id, entry in found.items()} == {
        "a0": "thus",
        "a1": "null",
        "a2": "www",
        "a3": "",
        "a4": "",
    }
    assert faults(found) == {}
    assert found["a1"].file_name == "words_captcha/a1.png"


def test_images_are_ordered_by_number_not_by_name(tmp_path):
    found = entries(tmp_path, "a0 thus\n", 12)
    assert list(found) == [f"a{number}" for number in range(12)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a1", "no word"),
        ("a1 ", "no word"),
        ("a1\t\tthus", "separator"),
        ("a1 \tthus", "separator"),
        ("a1  thus", "separator"),
        ("a1,thus", "separator"),
        ("a1;thus", "separator"),
        ("a1 thus ", "separator"),
        ("a1 th us", "separator"),
        ("a1 th\u200bus", "invisible character"),
        ("a1 th\x7fus", "control character"),
        ("a1 other\na1 thus", "duplicate id"),
        ("a1 thus\na1 thus", "duplicate id"),
        ("", "no label"),
    ],
)
def test_an_unusable_line_fails_its_image_only(tmp_path, line, reason):
    found = entries(tmp_path, f"a0 null\n{line}\na2 book\n", 4)
    assert faults(found) == {"a1": reason}
    assert [found[image_id].label for image_id in ("a0", "a2", "a3")] == ["null", "book", ""]
    assert not found["a1"].label or reason == "no label"
    assert str(tmp_path / "labels.txt") in found["a1"].failure.location


def test_labels_may_have_any_characters_in_nfc(tmp_path):
    found = entries(tmp_path, "a0 Thus\na1 7hüs\na2 e\u0301\na3 007\na4 привет\na5 it's\n", 6)
    assert [entry.label for entry in found.values()] == ["Thus", "7hüs", "é", "007", "привет", "it's"]


def test_a_charset_limits_the_characters(tmp_path):
    rules = LabelRules.parse("abcdefghijklmnopqrstuvwxyz")
    found = entries(tmp_path, "a0 Thus\na1 th1s\na2 thus\n", 3, rules=rules)
    assert faults(found) == {"a0": "not in --charset", "a1": "not in --charset"}
    folded = entries(tmp_path, "a0 Thus\n", 1, rules=LabelRules.parse("HSTU", fold_case=True))
    assert folded["a0"].label == "thus"


@pytest.mark.parametrize(
    "line", ["thus", "b1 thus", "a01 thus", "a1.png thus", "A1 thus", " a1 thus", "a-1 thus", "id word"]
)
def test_a_line_without_an_id_is_a_failed_row(tmp_path, line):
    found = entries(tmp_path, f"a0 null\n{line}\na1 book\n", 2)
    assert faults(found) == {"line 2": "no id"}
    assert (found["a0"].label, found["a1"].label) == ("null", "book")


def test_a_line_that_is_not_text_is_a_failed_row(tmp_path):
    found = entries(tmp_path, b"a0 null\n\xff\xfe\na1 book\n", 2)
    assert faults(found) == {"line 2": "not UTF-8"}


def test_windows_line_ends_and_a_byte_order_mark_are_accepted(tmp_path):
    found = entries(tmp_path, b"\xef\xbb\xbfa0 null\r\na1 book\r\n", 2)
    assert [entry.label for entry in found.values()] == ["null", "book"]
    assert faults(found) == {}


@pytest.mark.parametrize(
    ("labels", "label_format"),
    [
        ("a0 null\na1 book\n", None),
        ("a0 null\na1 book", None),
        ("a0\tnull\na1\tbook\n", LabelFormat(separator="\t")),
        ("a0\tnull\r\na1\tbook\r\n", LabelFormat(separator="\t", line_end="\r\n")),
        ("a0 null\ra1 book\r", LabelFormat(line_end="\r")),
        ("a0\tnull\na1 book\na2\tthus\n", LabelFormat(separator="\t")),
    ],
)
def test_separator_and_line_end_are_those_of_the_file_and_of_most_labels(tmp_path, labels, label_format):
    (tmp_path / "labels.txt").write_bytes(labels.encode())
    reader = CaptchaReader(find_label_file(str(tmp_path / "labels.txt")))
    found = list(reader.read_listed_images([ListedImage(f"a{number}.png") for number in range(2)]))
    assert [entry.label for entry in found[:2]] == ["null", "book"]
    assert reader.label_format == label_format


def test_a_label_of_an_unknown_image_names_the_file_that_it_lacks_and_leaves_the_last_images_unlabelled(tmp_path):
    found = entries(tmp_path, "a0 null\na99 book\n", 3)
    assert (found["a99"].file_name, found["a99"].label) == ("a99.png", "book")
    assert faults(found) == {}


def test_images_of_other_names_are_failed_rows(tmp_path):
    names = ["a0.png", "thumb.png", "a01.png", "a1.jpg", "x/a.png", "a2.PNG"]
    found = entries(tmp_path, "a0 null\n", names)
    assert faults(found) == dict.fromkeys(sorted(names[1:]), "name")


def test_two_files_of_one_number_are_a_failure(tmp_path):
    found = entries(tmp_path, "a0 null\n", ["one/a0.png", "other/a0.png", "one/a1.png"])
    assert faults(found) == {"a0": "two files"}
    assert "other/a0.png" in found["a0"].failure.detail


def test_a_label_file_without_lines_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="the file contains no label"):
        entries(tmp_path, "\n\n", 3)
    assert entries(tmp_path, "a0 null\n".encode("utf-16"), 1)["a0"].label == "null"


def test_a_missing_label_file_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"no such annotation file. Check --labels"):
        find_label_file(str(tmp_path / "labels.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"contains no spec_train_val\.txt, labels\.txt, \*\.csv, .*\. Check --labels"):
        find_label_file(str(tmp_path / "empty"))


def splits(found: dict[str, ImageEntry]) -> list[str | None]:
    return [entry.split for entry in found.values()]


def test_splits_are_assigned_by_position_in_the_published_ratios(tmp_path):
    assert splits(entries(tmp_path, "a0 null\n", 14)) == ["train"] * 10 + ["val"] * 2 + ["test"] * 2
    names = [f"a{number}.png" for number in (3, 100, 7, 2000, 9, 8, 5)]
    found = entries(tmp_path, "a3 null\n", names)
    assert list(found) == ["a3", "a5", "a7", "a8", "a9", "a100", "a2000"]
    assert splits(found) == ["train"] * 5 + ["val", "test"]


def test_an_image_that_is_missing_moves_no_other_into_another_split(tmp_path):
    labels = "".join(f"a{number} thus\n" for number in range(12))
    names = [f"a{number}.png" for number in range(14) if number != 4]
    assert splits(entries(tmp_path, labels, names)) == ["train"] * 10 + ["val"] * 2 + ["test"] * 2


def test_splits_follow_the_given_sizes_and_the_rest_is_unused(tmp_path):
    found = entries(tmp_path, "a0 null\n", 7, counts=SplitCounts(3, 0, 2))
    assert splits(found) == ["train"] * 3 + ["test"] * 2 + ["unused"] * 2
    with pytest.raises(UsageError, match="the splits need 8 images, and there are 7"):
        entries(tmp_path, "a0 null\n", 7, counts=SplitCounts(4, 2, 2))


def test_split_sizes_are_three_whole_numbers():
    assert parse_split_sizes("100000,20000,20000") == (100_000, 20_000, 20_000)
    for text in ("", "1,2", "1,2,3,4", "a,b,c", "1,-2,3", "0,0,0", "0.8,0.1,0.1"):
        with pytest.raises(UsageError, match="--split-sizes"):
            parse_split_sizes(text)


NUMBERS = st.integers(0, 30)
WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=5)


@settings(deadline=None)
@given(words=st.dictionaries(NUMBERS, WORDS, min_size=1), end=st.sampled_from(["\n", "\r\n"]), data=st.data())
def test_labels_in_any_order_come_back_as_they_were_written(tmp_path_factory, words, end, data):
    lines = data.draw(st.permutations([f"a{number} {word}" for number, word in words.items()]))
    found = entries(tmp_path_factory.getbasetemp(), end.join(lines), max(words) + 2)
    assert {image_id: entry.label for image_id, entry in found.items() if entry.label} == {
        f"a{number}": word for number, word in words.items()
    }
    holes = {f"a{number}" for number in range(max(words)) if number not in words}
    assert faults(found) == dict.fromkeys(holes, "no label")


@settings(deadline=None)
@given(labels=st.one_of(st.binary(max_size=200), st.text("a01 \t\r\nTbc,.é", max_size=200).map(str.encode)))
def test_every_image_is_accounted_for_with_any_label_file(tmp_path_factory, labels):
    try:
        found = entries(tmp_path_factory.getbasetemp(), labels, 3)
    except CaptError:
        return
    assert {"a0", "a1", "a2"} <= set(found)
    for entry in found.values():
        assert not set(entry.label) & set(" \t\r\n\0")
