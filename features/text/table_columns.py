"""Finds the columns of a table by the names that the user has given, or else by the names that are usual."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from features.text.lines import shorten
from schemas.errors import UsageError

_log = logging.getLogger("capt.columns")


class ColumnRole(NamedTuple):
    """What a column contains, and its usual names, the most specific first. Without `required` it may be missing."""

    name: str
    usual: tuple[str, ...]
    required: bool = True


IMAGE = ColumnRole(
    "image",
    (
        *("image", "image_path", "image_name", "image_file", "file_name", "filename", "file", "filepath", "file_path"),
        *("path", "img", "img_path", "images", "image_id", "name", "id"),
    ),
)
LABEL = ColumnRole(
    "label",
    (
        *("label", "text", "word", "labels", "words", "transcription", "transcript", "ground_truth", "gt", "target"),
        *("solution", "answer", "captcha", "plate", "value", "caption"),
    ),
)
SPLIT = ColumnRole("split", ("split", "subset"), required=False)
CAPTION = ColumnRole(
    "caption",
    (
        *("text", "texts", "sentence", "sentences", "sentences_raw", "raw", "description", "descriptions", "comment"),
        *("alt_text", "alt", "prompt"),
    ),
)
ID = ColumnRole("id", ("id", "caption_id"), required=False)
# No usual name: a wrong guess would change splits.
GROUP = ColumnRole("group", (), required=False)
# As GROUP: a column `hash` often has something else than the hash of the image's bytes.
HASH = ColumnRole("hash", (), required=False)
# The names in LAION, COYO and DataComp, and in tables of the library `datasets`.
URL = ColumnRole("image", ("url", "image_url", "img_url", "image_link", "link", "uri"))

# `caption` and `captions`, or else all numbered columns, such as `caption_0` to `caption_4`.
_CAPTIONS = (re.compile("captions?"), re.compile("captions?_?[0-9]+"))


class CaptionColumns(NamedTuple):
    """Names of the columns of a table with captions; None and () to find the column by the usual names."""

    image: str | None = None
    caption: tuple[str, ...] = ()
    id: str | None = None
    split: str | None = None
    group: str | None = None
    hash: str | None = None


class FoundColumns(NamedTuple):
    """The columns of a table with captions, by their names in the table; None for a column that it lacks."""

    image: str
    captions: tuple[str, ...]
    id: str | None
    split: str | None
    group: str | None
    hash: str | None = None

    @property
    def names(self) -> list[str]:
        """The names of all columns that are used."""
        return [name for _, name in self.list_roles()]

    def list_roles(self) -> list[tuple[str, str]]:
        """Returns role and name of all columns that are used."""
        used = [("image", self.image), *(("caption", name) for name in self.captions)]
        others = (("id", self.id), ("split", self.split), ("group", self.group), ("hash", self.hash))
        return used + [(role, name) for role, name in others if name is not None]


USUAL_CAPTION_COLUMNS = CaptionColumns()


def find_columns(
    header: Sequence[str], location: str, roles: Iterable[ColumnRole], given: Mapping[str, str | None]
) -> dict[str, str]:
    """Returns the name of the column of each role.

    Args:
        header: Names of the columns.
        location: The table, for messages.
        roles: Roles to find. A column that has been found has no second role, unless the user has given it.
        given: Name of the column by role, as the user has given it; None to use the usual names.

    Raises:
        UsageError: A column is missing or ambiguous.
    """
    found: dict[str, str] = {}
    for role in roles:
        own = given.get(role.name)
        if own is not None:
            found[role.name] = _find_given(header, location, role, own)
            continue
        usual = (column for column in _match_usual(header, role.usual) if column not in found.values())
        column = next(usual, None)
        if column is not None:
            found[role.name] = _check_alone(header, location, column)
        elif role.required:
            raise _missing(header, location, role, f"no column with a usual name for the {role.name}")
    return found


def find_caption_columns(
    header: Sequence[str], location: str, given: CaptionColumns, image: ColumnRole = IMAGE
) -> FoundColumns:
    """Returns the columns of a table with captions; raises as `find_columns`. `image` is the role of the images."""
    roles = (image, ID, SPLIT, GROUP, HASH)
    found = find_columns(header, location, roles, {role.name: getattr(given, role.name) for role in roles})
    captions = find_captions(header, location, given.caption)
    return FoundColumns(found["image"], captions, *(found.get(role.name) for role in roles[1:]))


def find_captions(header: Sequence[str], location: str, given: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns with captions: the given ones, or those with usual names. UsageError if one is missing."""
    if given:
        return tuple(dict.fromkeys(_find_given(header, location, CAPTION, name) for name in given))
    columns = list_usual_captions(header)
    if not columns:
        raise _missing(header, location, CAPTION, "no column with a usual name for the caption")
    return tuple(_check_alone(header, location, column) for column in columns)


def list_usual_captions(header: Sequence[str]) -> list[str]:
    """Returns the columns that contain captions by their usual names."""
    named = ([column for column in header if one.fullmatch(_fold(column))] for one in _CAPTIONS)
    return next(filter(None, named), []) or list(_match_usual(header, CAPTION.usual))[:1]


def report_columns(location: str, columns: Iterable[tuple[str, str]]) -> None:
    """Logs which column of a table has which role."""
    _log.info("%s: columns: %s.", location, ", ".join(f"{role} {shorten(column)}" for role, column in columns))


def _find_given(header: Sequence[str], location: str, role: ColumnRole, name: str) -> str:
    same = [column for column in header if column.strip() == name.strip()]
    if not same:
        raise _missing(header, location, role, f"no column {name!r}")
    if len(same) > 1:
        raise _several(location, same)
    return same[0]


def _match_usual(header: Sequence[str], names: Iterable[str]) -> Iterator[str]:
    return (column for name in names for column in header if _fold(column) == name)


def _fold(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def _check_alone(header: Sequence[str], location: str, column: str) -> str:
    """Returns a column that was found by its usual name; UsageError if another one has this name, too."""
    same = [one for one in header if _fold(one) == _fold(column)]
    if len(same) > 1:
        raise _several(location, same)
    return column


def _several(location: str, columns: Sequence[str]) -> UsageError:
    message = f"there are {len(columns)} columns {columns[0]!r}"
    return UsageError(message, location=location, hint="Rename one of them.")


def _missing(header: Sequence[str], location: str, role: ColumnRole, problem: str) -> UsageError:
    message = f"{problem}; the columns are {shorten(', '.join(map(str, header)))}"
    hint = f"Name the column with --{role.name}-column. The first row of a CSV file has the names of the columns."
    return UsageError(message, location=location, hint=hint)
