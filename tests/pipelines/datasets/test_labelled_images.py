"""Labels come from file names, tables and lists; what cannot be a label fails its image only."""

from pathlib import Path

import pytest

from features.inputs.label_files import USUAL_COLUMNS
from features.text.label_rules import ANY_LABEL, LabelRules
from pipelines.datasets.base import ImageEntry, ListedImage
from pipelines.datasets.label_sources import find_label_file
from pipelines.datasets.labelled_images import FileNameReader, LabelListReader, LabelTableReader, parse_label_pattern
from pipelines.datasets.splits import SplitCounts
from schemas.errors import UsageError


def by_name(names, pattern=None, rules=ANY_LABEL, counts=None) -> dict[str, ImageEntry]:
    reader = FileNameReader(parse_label_pattern(pattern), rules, counts)
    return {entry.image_id: entry for entry in reader.read_listed_images(map(ListedImage, sorted(names)))}


def by_list(directory: Path, text: bytes, names, counts=None) -> dict[str, ImageEntry]:
    (directory / "labels.txt").write_bytes(text)
    reader = LabelListReader(find_label_file(str(directory / "labels.txt")), ANY_LABEL, counts)
    return {entry.image_id: entry for entry in reader.read_listed_images(map(ListedImage, sorted(names)))}


def by_table(directory: Path, text: str, rules=ANY_LABEL, counts=None) -> dict[str, ImageEntry]:
    (directory / "labels.csv").write_text(text)
    reader = LabelTableReader(find_label_file(str(directory / "labels.csv")), USUAL_COLUMNS, rules, counts)
    found = list(reader.read_images())
    assert len({entry.image_id for entry in found}) == len(found)
    return {entry.image_id.removeprefix(f"{directory}/"): entry for entry in found}


def labels(found: dict[str, ImageEntry]) -> dict[str, str]:
    return {image_id: entry.label for image_id, entry in found.items() if entry.label}


def faults(found: dict[str, ImageEntry]) -> dict[str, str]:
    return {image_id: entry.failure.reason for image_id, entry in found.items() if entry.failure}


def splits(found: dict[str, ImageEntry]) -> list[str | None]:
    return [entry.split for entry in found.values()]


# === File names ===


def test_the_label_is_the_file_name_and_the_id_the_path():
    found = by_name(["226md.png", "x/226md.jpg", "007.webp", "null.PNG", "a.b.gif", "Ä.bmp", "x/7.5"])
    assert labels(found) == {
        "226md.png": "226md",
        "x/226md.jpg": "226md",
        "007.webp": "007",
        "null.PNG": "null",
        "a.b.gif": "a.b",
        "Ä.bmp": "Ä",
        "x/7.5": "7.5",
    }
    assert faults(found) == {}
    assert set(splits(found)) == {None}


def test_a_name_of_unknown_encoding_is_no_label_even_if_a_pattern_matches():
    files = [ListedImage("ab.png"), ListedImage("дa.png", has_known_name=False)]
    for pattern in (None, "(?P<label>.+)"):
        found = list(FileNameReader(parse_label_pattern(pattern), ANY_LABEL).read_listed_images(files))
        assert [entry.label for entry in found] == ["ab", ""]
        assert found[1].failure.reason == "name is not UTF-8"


def test_the_encoding_of_a_directory_does_not_matter_to_the_label():
    files = [ListedImage("д/7Hq2.png", has_known_name=False)]
    (found,) = FileNameReader(parse_label_pattern(None), ANY_LABEL).read_listed_images(files)
    assert (found.label, found.failure) == ("7Hq2", None)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (r"(?P<label>\w+)\.\d+", {"7766.1.png": "7766", "7766.12.png": "7766"}),
        (r"(?P<label>.+)-\d+", {"abc-0.png": "abc", "a-b-1.png": "a-b"}),
        (r"\d+_(?P<label>[^_]+)_\d+", {"x/115_Lube_45484.jpg": "Lube"}),
    ],
)
def test_a_pattern_finds_the_label_in_the_file_name(pattern, names):
    assert labels(by_name(names, pattern)) == names


def test_names_that_are_no_label_fail_with_their_reason():
    names = ["abc.png", "aé.png", "a-b.png", " .png", "ab .png"]
    found = by_name(names, "(?P<label>[^-]*)", LabelRules.parse("abc"))
    assert faults(found) == {
        " .png": "no label",
        "a-b.png": "no match",
        "ab .png": "space at an end",
        "aé.png": "not in --charset",
    }
    assert "'a-b' does not match --label-pattern (?P<label>[^-]*)" in found["a-b.png"].failure.detail
    assert faults(by_name(["x.png"], "x(?P<label>.)?")) == {"x.png": "no label"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "not a regular expression"), (r"(\w+)-\d", "has no group named label"), ("(?P<text>.)", "no group named")],
)
def test_a_pattern_needs_a_group_label(pattern, message):
    with pytest.raises(UsageError, match=f"--label-pattern: .*{message}"):
        parse_label_pattern(pattern)


def test_splits_by_position_follow_the_numbers_in_the_names():
    found = by_name(["x10.png", "x9.png", "x1.png"], counts=SplitCounts(1, 1, 0))
    assert {image_id: entry.split for image_id, entry in found.items()} == {
        "x1.png": "train",
        "x9.png": "val",
        "x10.png": "unused",
    }
    with pytest.raises(UsageError, match="the splits need 3 images, and there are 2"):
        by_name(["x.png", "y.png"], counts=SplitCounts(1, 1, 1))


# === Lists ===


def test_the_lines_of_a_list_belong_to_the_images_in_the_order_of_their_numbers(tmp_path):
    found = by_list(tmp_path, b"zero\r\none\r\nnull\r\n", ["i0.png", "i1.png", "i2.png"])
    assert labels(found) == {"i0.png": "zero", "i1.png": "one", "i2.png": "null"}
    names = [f"i{number}.png" for number in range(11)]
    found = by_list(tmp_path, b"\n".join(b"%d" % number for number in range(11)), names)
    assert found["i10.png"].label == "10"


def test_a_line_of_a_list_that_is_no_label_fails_its_image_only(tmp_path):
    found = by_list(tmp_path, b"zero\n\n\xff\nthree \nfour\n", [f"i{number}.png" for number in range(6)])
    assert faults(found) == {"i1.png": "no label", "i2.png": "not UTF-8", "i3.png": "space at an end"}
    assert labels(found) == {"i0.png": "zero", "i4.png": "four"}


def test_an_uncertain_order_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the file has 3 lines with one label each, and there are 2 images"):
        by_list(tmp_path, b"x\ny\nz\n", ["i0.png", "i1.png"])
    with pytest.raises(UsageError, match="the image numbers go from 1 to 3"):
        by_list(tmp_path, b"x\ny\nz\n", ["i0.png", "i1.png", "i3.png"])
    with pytest.raises(UsageError, match="the image numbers go from 3 to 0"):
        by_list(tmp_path, b"w\nx\ny\nz\n", ["b/0.png", "b/1.png", "a/2.png", "a/3.png"])
    with pytest.raises(UsageError, match="the lines begin with names of images"):
        by_list(tmp_path, b"00001 7Hq\n00002 8x\n", ["00001.png", "00002.png"])
    assert len(labels(by_list(tmp_path, b"1\n2 x\n", ["1.png", "2.png"]))) == 2


# === Tables ===


def test_a_label_may_have_spaces_but_not_at_its_ends(tmp_path):
    lines = "a.png two words\nmy cat.png\tone two three\nc.png  x\nd.png x \n"
    (tmp_path / "lines.txt").write_text(lines)
    reader = LabelTableReader(find_label_file(str(tmp_path / "lines.txt")), USUAL_COLUMNS, ANY_LABEL)
    expected = (
        {"a.png": "two words", "my cat.png": "one two three"},
        dict.fromkeys(("c.png", "d.png"), "space at an end"),
    )
    found = {entry.image_id: entry for entry in reader.read_images()}
    assert (labels(found), faults(found)) == expected
    table = "image,label\na.png,two words\nmy cat.png,one two three\nc.png, x\nd.png,x \n"
    found = by_table(tmp_path, table)
    assert (labels(found), faults(found)) == expected


def test_a_table_names_images_labels_and_splits(tmp_path):
    found = by_table(tmp_path, "file,label,split\nx/a.png,007,train\nb,null,dev\nc.png,NaN,\n")
    assert labels(found) == {"x/a.png": "007", "b": "null", "c.png": "NaN"}
    assert splits(found) == ["train", "val", None]


def test_a_row_that_is_no_label_fails_its_image_or_its_line(tmp_path):
    text = "file,label\na.png,x\nb.png,\nc.png,xy\nc.png,xy\nd.png\ne.png,z\n"
    found = by_table(tmp_path, text, LabelRules.parse("xy"))
    assert faults(found) == {
        "labels.csv:6": "too few columns",
        "b.png": "no label",
        "c.png": "duplicate id",
        "e.png": "not in --charset",
    }
    assert found["c.png"].failure.detail == f"{tmp_path}/labels.csv:4 names c.png, too"
    assert found["c.png"].label == ""


def test_two_ways_to_write_a_name_are_one_image(tmp_path):
    found = by_table(tmp_path, "image,label\na.png,x\n./a.png,y\nx/e\u0301.png,x\nx\\é.png,x\n")
    assert faults(found) == {"a.png": "duplicate id", "x/e\u0301.png": "duplicate id"}


def test_a_value_that_is_no_split_fails_its_image_if_splits_are_used(tmp_path):
    text = "image,label,split\na,x,fold3\nb,y,test\n"
    assert faults(by_table(tmp_path, text)) == {"a": "unknown split"}
    (tmp_path / "labels.csv").write_text(text)
    document = find_label_file(str(tmp_path / "labels.csv"))
    reader = LabelTableReader(document, USUAL_COLUMNS, ANY_LABEL, uses_splits=False)
    assert [(entry.split, entry.failure) for entry in reader.read_images()] == [(None, None)] * 2


def test_splits_by_position_follow_the_rows(tmp_path):
    found = by_table(tmp_path, "image,label,split\nb,x,test\na,y,test\n", counts=SplitCounts(1, 1, 0))
    assert {image_id: entry.split for image_id, entry in found.items()} == {"b": "train", "a": "val"}
