"""`capt predict captions`: captions of a whole folder, a JSON line an image; a killed run goes on where it stopped.

Lines gather in `OUT.part`, below one that says whose they are, and become `OUT` when the last image is done.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from features.extraction import Source
from features.files import written_aside
from features.progress import bar
from schemas.recipes import digest_of
from trainer.captioning import as_result
from trainer.decoding import Decoding
from trainer.pictures import Picture, find_pictures
from trainer.runs import DECODE_BATCH, Run, load_run


def predict_captions(run: str | Path | Run, images: Sequence[str], out: str | Path, **decoding: Any) -> dict[str, Any]:
    """Caption folders and archives into a file.

    Args:
        run: str, Path or Run. A run directory, or an open run.
        images: sequence of str. As `trainer.pictures.find_pictures` takes them.
        out: str or Path. The file, one JSON object a line: `image` and `text`, `score`, or `error`; the images of each
            name in `images` by name.
        **decoding: as `Run.decoding` takes it.

    Returns:
        dict: `out`, `images`, `captions`, `failed`, `resumed` (lines that an earlier, killed run had written).

    Raises:
        UsageError: an option is out of range.
        StoreError: the run cannot be used.
    """
    opened = run if isinstance(run, Run) else load_run(run)
    chosen = opened.decoding(**decoding)
    pictures = [picture for name in images for picture in find_pictures(name)]
    part = Path(f"{out}.part")
    resumed = _begin(part, _owner(opened, chosen, pictures))
    with part.open("ab") as file, bar("captioning", len(pictures), "images") as show:
        done = resumed
        for lines in _batches(opened, pictures[resumed:], chosen, resumed):
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
            done += len(lines)
            show(done, "")
    failed = _finish(part, Path(out))
    return {
        "out": str(out),
        "images": len(pictures),
        "captions": len(pictures) - failed,
        "failed": failed,
        "resumed": resumed,
    }


def _owner(run: Run, decoding: Decoding, pictures: Sequence[Picture]) -> str:
    """Digest of what decides the lines: run, decoding, and which images."""
    return digest_of([run.identity, decoding.model_dump(mode="json"), [picture.name for picture in pictures]])


def _begin(part: Path, owner: str) -> int:
    """Make `part` the beginning of this very job; how many of its lines are whole."""
    head = json.dumps({"job": owner}).encode() + b"\n"
    with contextlib.suppress(FileNotFoundError):
        lines = part.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if whole[:1] == [head]:
            with part.open("r+b") as file:
                file.truncate(sum(map(len, whole)))
            return len(whole) - 1
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(head)
    return 0


def _batches(run: Run, pictures: Sequence[Picture], decoding: Decoding, first: int) -> Iterator[list[bytes]]:
    made = run.caption_sources((Source(b"", picture.read) for picture in pictures), decoding, first)
    lines = (
        json.dumps({"image": picture.name, **as_result(result)}, ensure_ascii=False).encode() + b"\n"
        for picture, result in zip(pictures, made, strict=True)
    )
    while batch := list(islice(lines, DECODE_BATCH)):
        yield batch


def _finish(part: Path, out: Path) -> int:
    """Give the lines their place, without the first; how many tell of a failure."""
    failed = 0
    with written_aside(out) as aside, part.open("rb") as lines, aside.open("wb") as file:
        next(lines)
        for line in lines:
            failed += "error" in json.loads(line)
            file.write(line)
    part.unlink()
    return failed
