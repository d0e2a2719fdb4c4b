"""`capt read`: the words in files, folders and archives, by every decoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from features.downloads import DownloadLimits
from features.extraction import Source
from schemas.errors import RecordError, UsageError
from schemas.printing import printable
from trainer.inputs.pictures import checked, find_pictures
from trainer.runs.recognizer_run import HOWS, Readings, RecognizerRun, check_how
from trainer.runs.run import open_run


def read(
    run: str | Path | RecognizerRun, images: Sequence[str], decode: str = "greedy", *, allow_private: bool = False
) -> dict[str, Any]:
    """The words in images.

    Args:
        run: str, Path or RecognizerRun. A run directory, or an open run.
        images: sequence of str. As `trainer.inputs.pictures.find_pictures` takes them.
        decode: str. `greedy`, `beam` or `lexicon`: what `text` and `score` are.
        allow_private: bool. Whether http and https addresses outside the public internet are asked.

    Returns:
        `{"results": […]}`, an image each: `image` and `text`, `score` (natural logarithm of its probability), and
        `greedy`, `beam` and `lexicon` with a text and score each, whatever was asked for; or `image` and `error`.

    Raises:
        UsageError: no image was named, or there is no such decoder.
        StoreError: the run cannot be used.
        NoAnswerError: no image can be read.
    """
    if not images:
        raise UsageError("no image was named")
    check_how(decode)
    opened = open_run(run, RecognizerRun)
    limits = DownloadLimits(allow_private=allow_private)
    pictures = [picture for name in images for picture in find_pictures(name, limits)]
    answers = opened.all_readings(Source(b"", picture.read) for picture in pictures)
    results = [
        {"image": picture.name, **as_result(answer, decode)} for picture, answer in zip(pictures, answers, strict=True)
    ]
    return checked({"results": results})


def print_readings(result: dict[str, Any]) -> None:
    """Print what `read` returned, a line an image: its name, a tab, and its word or why it has none."""
    for row in result["results"]:
        print(printable(row["image"]), printable(row["text"] if "text" in row else row["error"]), sep="\t")


def as_result(answer: Readings | RecordError, decode: str) -> dict[str, Any]:
    """What JSON says of an image: `text` and `score` as asked for and of every decoder, or its `error`."""
    if isinstance(answer, RecordError):
        return {"error": str(answer)}
    each = {how: {"text": answer.by(how).text, "score": answer.by(how).score} for how in HOWS}
    return {**each[decode], **each}
