"""Partial files: lines gather in `OUT.part`, and become `OUT` when the last is there.

    {"job": "…"}        whose lines these are: another job's are not taken over
    0<TAB>…<TAB>…       the number of a line, a digest of the picture that it tells of, and the line
    1<TAB>…<TAB>…

A killed run goes on with the lines that are whole and tell of the same pictures. They may come in any order, and
again, when the last is meant; `OUT` has them by number.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from features.io.atomic_files import atomic_write, write
from schemas.table_config import compute_digest
from trainer.data.image_inputs import ImageInput


class PartialOutput:
    """Lines of a file that is not whole yet.

    Args:
        out: Path. The file that they become.
        owner: str. A digest of all that decides the lines, besides the pictures.
        pictures: Sequence of Picture or None. What each line tells of; None if there is none.
    """

    def __init__(self, out: Path, owner: str, pictures: Sequence[ImageInput | None]) -> None:
        self._out = out
        self._part = out.with_name(f"{out.name}.part")
        self._digests = [compute_digest([one.name, one.stamp] if one else []) for one in pictures]
        self._places = np.full(len(pictures), -1, np.int64)
        self._begin(json.dumps({"job": compute_digest([owner, len(pictures)])}).encode() + b"\n")
        self.resumed = int((self._places >= 0).sum())

    @property
    def missing(self) -> list[int]:
        """The numbers of the lines that are not there yet."""
        return np.flatnonzero(self._places < 0).tolist()

    def add(self, lines: Iterable[tuple[int, str]]) -> None:
        """Keep lines, by number, on the disk."""
        with self._part.open("ab") as file:
            for number, line in lines:
                self._places[number] = file.tell()
                file.write(f"{number}\t{self._digests[number]}\t{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def finish(self, instead: Callable[[int], str] | None = None) -> None:
        """Give the lines their place, by number.

        Args:
            instead: Makes a line that is missing, which is kept nowhere else; None where all must be there.
        """
        assert instead or not self.missing
        with atomic_write(self._out) as temporary, self._part.open("rb") as part, temporary.open("wb") as file:
            for number, place in enumerate(self._places.tolist()):
                part.seek(max(place, 0))
                file.write(
                    f"{instead(number)}\n".encode() if instead and place < 0 else part.readline().split(b"\t", 2)[2]
                )
        self._part.unlink()

    def _begin(self, head: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            end = self._read(head)
            if end:
                os.truncate(self._part, end)
                return
        write(self._part, head)

    def _read(self, head: bytes) -> int:
        """Note where the whole lines begin; where they end, 0 where they are another job's."""
        with self._part.open("rb") as file:
            if file.readline() != head:
                return 0
            end = file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                number, digest, _ = line.split(b"\t", 2)
                if self._digests[int(number)].encode() == digest:
                    self._places[int(number)] = end
                end += len(line)
            return end
