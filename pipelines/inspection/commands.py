"""Builds the commands that prepare a candidate."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import chain

from features.inputs.npy_arrays import NPY_SUFFIX
from pipelines.datasets import DATASET_READERS, EMBEDDED
from pipelines.inspection.arrays import NPZ_SUFFIX
from pipelines.inspection.candidates import Candidate
from pipelines.inspection.first_records import ARRAYS, CAPTCHA
from schemas.options.data import Inspect
from schemas.options.prepare import ColumnOptions

_DOWNLOADS = "downloads"


class Placeholder(StrEnum):
    """A word of a command that the user replaces."""

    IMAGES = "DIR"
    DATASET_TYPE = "TYPE"
    NAMES = "FILE"


_MEANINGS = {
    Placeholder.IMAGES: "the directory or archive with the images",
    Placeholder.DATASET_TYPE: "the dataset type of the images",
    Placeholder.NAMES: "the file with the names of the rows, in their order",
}


def build_commands(candidate: Candidate, arrays: Sequence[str], options: Inspect) -> Iterator[list[str]]:
    """Yields the words of the commands that prepare a candidate, with the given columns and computed features."""
    images = _repeat("--images", candidate.images or _find_missing_images(candidate.dataset_type))
    imported = _list_array_options(arrays)
    if candidate.dataset_type == CAPTCHA:
        labels = ["--labels", candidate.labels] if candidate.labels else []
        columns = _list_columns(options, ("image_column", "label_column", "split_column"))
        yield ["capt", "prepare", "captcha", "--store", "S", *images, *labels, *columns]
        return
    if candidate.dataset_type == ARRAYS:
        kind = ["--store", "S", "--dataset-type", Placeholder.DATASET_TYPE]
        yield ["capt", "prepare", "features", *kind, *images, *imported]
        return
    kind = ["--store", "S", "--dataset-type", candidate.dataset_type]
    columns = _list_columns(options, ColumnOptions.model_fields)
    annotations = _repeat("--annotations", candidate.annotations)
    yield ["capt", "prepare", "features", *kind, *images, *annotations, *columns, *imported]
    if candidate.dataset_type in EMBEDDED:
        annotations = _repeat("--annotations", candidate.images)
    if annotations:
        yield ["capt", "prepare", "captions", *kind, *annotations, *columns]


def join_command(words: Sequence[str]) -> str:
    """Returns a command as text for a shell. Words that cannot be printed as they are have the form `$'…'`."""
    return " ".join(shlex.quote(word) if word.isprintable() else f"$'{_escape(word)}'" for word in words)


def list_placeholders(commands: Sequence[Sequence[str]]) -> dict[str, str]:
    """Returns the words in commands that the user replaces, each with its meaning."""
    used = {word for word in chain.from_iterable(commands) if isinstance(word, Placeholder)}
    return {word.value: text for word, text in _MEANINGS.items() if word in used}


def _escape(word: str) -> str:
    r"""Returns a word for `$'…'`, in which `\xHH` is a byte."""
    return "".join(
        character if character.isprintable() and character not in "\\'" else _escape_bytes(character)
        for character in word
    )


def _escape_bytes(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def _find_missing_images(dataset_type: str) -> tuple[str]:
    """Returns the value of `--images` if no images were given: the new directory of downloads, or a placeholder."""
    has_urls = dataset_type in DATASET_READERS and getattr(DATASET_READERS[dataset_type], "has_urls", False)
    return (_DOWNLOADS if has_urls else Placeholder.IMAGES,)


def _list_array_options(arrays: Sequence[str]) -> list[str]:
    has_rows = any(one.lower().endswith((NPY_SUFFIX, NPZ_SUFFIX)) for one in arrays)
    return [*_repeat("--from-arrays", arrays), *(["--array-names", Placeholder.NAMES] if has_rows else [])]


def _list_columns(options: Inspect, names: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Returns the options of columns that the user has given."""
    given = {name: getattr(options, name) for name in names}
    values = ((name, (value,) if isinstance(value, str) else value or ()) for name, value in given.items())
    return list(chain.from_iterable(_repeat(f"--{name.replace('_', '-')}", value) for name, value in values))


def _repeat(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
