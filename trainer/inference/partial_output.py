"""Writes the lines of an output file in any order, resumes an interrupted run, and finishes the file in order.

Incomplete output is in `FILE.part`. It becomes `FILE` after the last line is written:

    {"job": "…"}        digest of the job: lines of another job are discarded
    0<TAB>…<TAB>…       number of a line, digest of its image, and the line
    1<TAB>…<TAB>…

A resumed run keeps the complete lines of unchanged images. If a line is written twice, the last one is used.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from features.io.atomic_files import atomic_write, write
from schemas.table_config import compute_digest
from trainer.inference.image_inputs import ImageInput


def partial_path(out: Path) -> Path:
    """Returns the path of the incomplete output of a file."""
    return out.with_name(f"{out.name}.part")


class PartialOutput:
    """A file with one line per image. The line of a missing image (None) may be missing.

    `owner` is the digest of all inputs that determine the lines, except the images. `line_end` ends each line of the
    finished file.
    """

    def __init__(self, out: Path, owner: str, images: Sequence[ImageInput | None], line_end: str = "\n") -> None:
        self._out = out
        self._line_end = line_end.encode()
        self._part = partial_path(out)
        self._digests = [compute_digest([image.name, image.stamp] if image else []) for image in images]
        self._offsets = np.full(len(images), -1, np.int64)
        head = json.dumps({"job": compute_digest([owner, len(images)])}).encode() + b"\n"
        end = self._find_lines(head) if self._part.exists() else 0
        if end:
            os.truncate(self._part, end)
        else:
            write(self._part, head)
        self.resumed = int((self._offsets >= 0).sum())

    @property
    def missing(self) -> list[int]:
        """Numbers of the missing lines."""
        return np.flatnonzero(self._offsets < 0).tolist()

    def add(self, lines: Iterable[tuple[int, str]]) -> None:
        """Appends numbered lines and flushes them to the disk."""
        with self._part.open("ab") as file:
            for number, line in lines:
                self._offsets[number] = file.tell()
                file.write(f"{number}\t{self._digests[number]}\t{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[tuple[int, str]]:
        """Yields the number and text of each line that is not missing, by line number."""
        with self._part.open("rb") as part:
            for number, offset in enumerate(self._offsets.tolist()):
                if offset >= 0:
                    part.seek(offset)
                    yield number, part.readline().removesuffix(b"\n").split(b"\t", 2)[2].decode()

    def finish(
        self, fallback: Callable[[int], str] | None = None, omit: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Writes the finished file, sorted by line number; `fallback` returns a missing line, `omit` drops lines."""
        assert fallback or not self.missing
        with atomic_write(self._out) as temporary, self._part.open("rb") as part, temporary.open("wb") as file:
            for number, offset in enumerate(self._offsets.tolist()):
                if fallback and offset < 0:
                    line = fallback(number).encode()
                else:
                    part.seek(offset)
                    line = part.readline().removesuffix(b"\n").split(b"\t", 2)[2]
                if not omit(line.decode()):
                    file.write(line + self._line_end)
        self._part.unlink()

    def _find_lines(self, head: bytes) -> int:
        """Records the offsets of complete lines; returns their end, or 0 if the file belongs to another job."""
        with self._part.open("rb") as file:
            if file.readline() != head:
                return 0
            end = file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                number, digest, _ = line.split(b"\t", 2)
                if self._digests[int(number)].encode() == digest:
                    self._offsets[int(number)] = end
                end += len(line)
            return end
