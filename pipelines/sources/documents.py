"""Annotation files, wherever they lie: plain files, or members of directories and archives, local or remote."""

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from features.references import Reference, is_collection, walk
from features.references.names import is_address
from pipelines.sources.base import Malformed
from pipelines.sources.lines import Line, decoded
from schemas.errors import CaptError, RecordError, UsageError

MAX_BYTES = 2 << 30

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Document:
    """One annotation file.

    Args:
        where: str. What the user named, and the path within it: what messages say.
        name: str. Path within what was named, with slashes; of a plain file its last part.
        reference: Reference. How to read it.
    """

    where: str
    name: str
    reference: Reference

    def read(self) -> bytes:
        """The bytes, 2 GiB at most; CaptError where they cannot be had."""
        try:
            return self.reference.read(MAX_BYTES)
        except RecordError as error:
            if error.reason == "too large":
                what = f"it holds more than {MAX_BYTES:,} bytes, which are the limit"
                raise CaptError(what, where=self.where, mend="cut it into several files") from error
            what = f"it cannot be read: {error.reason} ({error.detail})"
            raise CaptError(what, where=self.where, mend="fetch the file again") from error

    def json(self) -> Any:
        """The document as JSON; CaptError where it is none."""
        try:
            return json.loads(self.read())
        except (ValueError, RecursionError) as error:
            raise CaptError(f"not JSON: {error}", where=self.where, mend="fetch the file again") from error

    def lines(self) -> Iterator[Line | Malformed]:
        """The lines that are not blank, in UTF-8, without what ends them in Windows.

        A line that is not UTF-8, or holds a NUL byte, is Malformed.
        """
        for number, line in self.raw_lines():
            if line.strip():
                yield decoded(line, f"{self.where}:{number}")

    def raw_lines(self) -> Iterator[tuple[int, bytes]]:
        """Every line with its end, and its number from 1, without a byte order mark; CaptError where it is UTF-16."""
        data = self.read()
        if data.startswith(_UTF16):
            raise CaptError("it is in UTF-16", where=self.where, mend="save it as UTF-8")
        file = io.BytesIO(data)
        file.seek(len(_BOM) if data.startswith(_BOM) else 0)
        return enumerate(file, 1)

    def beside(self, names: Iterable[str]) -> Iterator["Document"]:
        """The plain files of these names in the document's own directory, as far as they are there."""
        if self.reference.member:
            return
        for name in names:
            other = Document(_sibling(self.where, name), name, Reference(_sibling(self.reference.location, name)))
            try:
                other.reference.read(MAX_BYTES)
            except RecordError as error:
                if error.reason == "missing":
                    continue
            yield other


def documents(
    names: Sequence[str], pattern: re.Pattern[str], what: str, option: str = "--annotations"
) -> Iterator[Document]:
    """The annotation files that a command names.

    Args:
        names: sequence of str. Each a plain file, taken whatever it is called, or a directory, zip or tar, local or at
            an address, of which the files that match are taken, by name.
        pattern: re.Pattern. Searched for in the path within a directory or archive.
        what: str. Such a file as people would write it, `captions_*.json`.
        option: str. The option that names them.

    Raises:
        UsageError: where one is not there, or holds no file that matches.
    """
    for name in names:
        if name.encode(errors="replace").decode() != name:
            raise UsageError("the path is not UTF-8", where=ascii(name), mend="rename it")
        if not name or not (is_address(name) or Path(name).exists()):
            raise UsageError("no such annotation file", where=name or option, mend=f"check {option}")
        if not is_collection(name):
            yield Document(name, PurePosixPath(name).name, Reference.of(name))
            continue
        found = sorted((one for one in walk(name) if pattern.search(one.name)), key=lambda one: one.name)
        if not found:
            raise UsageError(f"it holds no {what}", where=name, mend=f"check {option}")
        for one in found:
            yield Document(f"{name.rstrip('/')}/{one.name}", one.name, one.reference)


def required(annotations: Sequence[str], kind: str, example: str) -> tuple[str, ...]:
    """The annotations of a kind that cannot do without; UsageError naming an example."""
    if not annotations:
        raise UsageError(f"{kind} needs its annotation files", where="--annotations", mend=f"name {example}, say")
    return tuple(annotations)


def _sibling(path: str, name: str) -> str:
    head, slash, _ = path.rpartition("/")
    return f"{head}{slash}{name}"
