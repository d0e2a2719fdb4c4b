"""The columns of a table are those that the user names, or those with usual names; nothing is guessed between two."""

import pytest

from features.text.table_columns import CaptionColumns, FoundColumns, find_caption_columns
from schemas.errors import UsageError


@pytest.mark.parametrize(
    ("header", "found"),
    [
        # Karpathy-like CSV, Hugging Face datasets, LAION, and five captions per row.
        (["image", "caption"], FoundColumns("image", ("caption",), None, None, None)),
        (["file_name", "text"], FoundColumns("file_name", ("text",), None, None, None)),
        (["key", "TEXT", "File Name"], FoundColumns("File Name", ("TEXT",), None, None, None)),
        (["image", "alt_text", "caption"], FoundColumns("image", ("caption",), None, None, None)),
        (
            ["caption_0", "caption_1", "image", "split", "sentids"],
            FoundColumns("image", ("caption_0", "caption_1"), None, "split", None),
        ),
        (["caption", "captions", "path", "id"], FoundColumns("path", ("caption", "captions"), "id", None, None)),
        # Without another column of images, `id` names them, and has no second role.
        (["id", "caption", "subset"], FoundColumns("id", ("caption",), None, "subset", None)),
    ],
)
def test_usual_names_are_recognized(header: list[str], found: FoundColumns) -> None:
    assert find_caption_columns(header, "a.csv", CaptionColumns()) == found


def test_given_names_count_exactly_and_may_be_used_twice() -> None:
    given = CaptionColumns("photo", ("en", "de"), "nr", "fold", "nr")
    header = ["image", "photo", "caption", "de", "en", "nr", "fold"]
    assert find_caption_columns(header, "a.csv", given) == FoundColumns("photo", ("en", "de"), "nr", "fold", "nr")


@pytest.mark.parametrize(
    ("header", "given", "message"),
    [
        (["picture", "caption"], CaptionColumns(), "for the image; the columns are"),
        (["image", "width"], CaptionColumns(), "for the caption; the columns are"),
        (["image", "Image", "caption"], CaptionColumns(), "there are 2 columns 'image'"),
        (["image", "caption", "caption"], CaptionColumns(), "there are 2 columns 'caption'"),
        (["image", "caption", "x", "x"], CaptionColumns(group="x"), "there are 2 columns 'x'"),
        (["image", "caption"], CaptionColumns(split="fold"), "no column 'fold'; the columns are"),
        (["image", "caption"], CaptionColumns(caption=("caption", "Caption")), "no column 'Caption'"),
    ],
)
def test_a_column_that_is_missing_or_not_the_only_one_is_an_error(
    header: list[str], given: CaptionColumns, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find_caption_columns(header, "a.csv", given)
