"""Lines of the Flickr8k token file are read, repaired or failed, and split lists are found."""

import zipfile
from pathlib import Path

import pytest

from features.text.lines import FailedRecord
from pipelines.datasets.base import CaptionEntry
from pipelines.datasets.flickr import Flickr8kReader
from schemas.errors import CaptError, UsageError
from tests.pipelines.datasets.entries import bare_entries

TOKENS = b"a.jpg#0\tA dog .\na.jpg#1\tA cat .\nb.jpg#0\tA bird .\n2258277193_586949ec62.jpg.1#0\tA ghost .\n"


def write(tmp_path: Path, data: bytes = TOKENS, **lists: str) -> str:
    (tmp_path / "Flickr8k.token.txt").write_bytes(data)
    for split, names in lists.items():
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text(names)
    return str(tmp_path / "Flickr8k.token.txt")


def captions(tmp_path: Path, data: bytes) -> list[CaptionEntry | FailedRecord]:
    return bare_entries(Flickr8kReader([write(tmp_path, data)]).read_captions())


def splits(*annotations: str) -> dict[str, str | None]:
    return {entry.image_id: entry.split for entry in Flickr8kReader(annotations).read_images()}


def test_images_come_once_with_their_names_as_ids_the_ghost_too(tmp_path: Path) -> None:
    images = bare_entries(Flickr8kReader([write(tmp_path)]).read_images())
    names = ["a.jpg", "b.jpg", "2258277193_586949ec62.jpg.1"]
    assert [(entry.image_id, entry.file_name) for entry in images] == [(name, name) for name in names]


@pytest.mark.parametrize(
    ("line", "image", "number", "caption", "repaired"),
    [
        ("a.jpg#0\tA dog , running .", "a.jpg", "0", "A dog , running .", ""),
        ("a.jpg#12\tA # 1 dog\tand a tab", "a.jpg", "12", "A # 1 dog\tand a tab", ""),
        ("a.jpg#0 A dog", "a.jpg", "0", "A dog", "space for the tab"),
        ("a.jpg#0   A dog\tand a tab", "a.jpg", "0", "A dog\tand a tab", "space for the tab"),
        ("a.jpg#0 \tA dog", "a.jpg", "0", "A dog", ""),
        ("a dog.jpg#3\tA dog", "a dog.jpg", "3", "A dog", ""),
        ("a#1.jpg#3\tA dog", "a#1.jpg", "3", "A dog", ""),
        ("é.jpg#3\tÇa va", "é.jpg", "3", "Ça va", ""),
    ],
)
def test_lines_are_read_and_a_space_for_the_tab_is_repaired(
    tmp_path: Path, line: str, image: str, number: str, caption: str, repaired: str
) -> None:
    (entry,) = captions(tmp_path, f"{line}\n".encode())
    assert entry == CaptionEntry(image, number, caption, repaired)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a.jpg#0", "no caption"),
        (b"a.jpg#0\t", "no caption"),
        (b"a.jpg#0  ", "no caption"),
        (b"a.jpg\tA dog", "no image#number"),
        (b"a.jpg#\tA dog", "no image#number"),
        (b"a.jpg#x\tA dog", "no image#number"),
        (b"#0\tA dog", "no image#number"),
        (b"A dog", "no image#number"),
        (b"a.jpg#0\tcaf\xe9", "not UTF-8"),
        (b"a.jpg#0\tA \0 dog", "NUL byte"),
    ],
)
def test_a_line_that_cannot_be_read_is_reported_with_its_location_and_affects_no_other(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    before, entry, after = captions(tmp_path, b"a.jpg#7\tone\n" + line + b"\nb.jpg#0\ttwo\n")
    assert isinstance(entry, FailedRecord)
    assert (entry.location, entry.reason) == (f"{tmp_path}/Flickr8k.token.txt:2", reason)
    assert isinstance(before, CaptionEntry)
    assert isinstance(after, CaptionEntry)


@pytest.mark.parametrize("part", [" ", "#1", "#1 ", "#", "a ", "#" + "1" * 99])
def test_a_line_that_is_made_to_confuse_takes_no_longer_than_its_length(tmp_path: Path, part: str) -> None:
    assert len(captions(tmp_path, (part * (400_000 // len(part)) + "x").encode())) == 1


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_are_no_matter(tmp_path: Path) -> None:
    plain = captions(tmp_path, TOKENS)
    assert captions(tmp_path, b"\xef\xbb\xbf" + TOKENS.replace(b"\n", b"\r\n") + b"\r\n\n") == plain


def test_lists_beside_the_file_determine_the_splits_and_other_images_are_unused(tmp_path: Path) -> None:
    annotations = write(tmp_path, train="a.jpg\r\n\n", dev="b.jpg")
    ghost = "2258277193_586949ec62.jpg.1"
    assert splits(annotations) == {"a.jpg": "train", "b.jpg": "val", ghost: "unused"}


def test_without_lists_the_splits_are_open(tmp_path: Path) -> None:
    assert set(splits(write(tmp_path)).values()) == {None}


def test_lists_are_read_from_elsewhere_and_from_the_zip_and_other_files_are_ignored(tmp_path: Path) -> None:
    text = Path(write(tmp_path))
    elsewhere = tmp_path / "lists" / "Flickr_8k.testImages.txt"
    elsewhere.parent.mkdir()
    elsewhere.write_text("b.jpg\n")
    assert splits(str(text), str(elsewhere))["b.jpg"] == "test"
    with zipfile.ZipFile(tmp_path / "Flickr8k_text.zip", "w") as archive:
        archive.write(text, "Flickr8k.token.txt")
        archive.write(elsewhere, "Flickr_8k.testImages.txt")
        archive.writestr("Flickr8kReader.lemma.token.txt", "a.jpg#0\tA dog be run")
        archive.writestr("CrowdFlowerAnnotations.txt", "a.jpg\tb.jpg#2\t0\t0\t3")
        archive.writestr("__MACOSX/._Flickr8k.token.txt", b"\0\5")
    source = Flickr8kReader([str(tmp_path / "Flickr8k_text.zip")])
    assert len(bare_entries(source.read_captions())) == 4
    assert splits(str(tmp_path / "Flickr8k_text.zip"))["b.jpg"] == "test"


def test_an_image_on_two_lists_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CaptError, match=r"a\.jpg is in the test list and in the train list"):
        splits(write(tmp_path, train="a.jpg", test="a.jpg"))


def test_lists_alone_are_wrong_usage(tmp_path: Path) -> None:
    write(tmp_path, train="a.jpg")
    with pytest.raises(UsageError, match="no token file, only split lists"):
        splits(str(tmp_path / "Flickr_8k.trainImages.txt"))
