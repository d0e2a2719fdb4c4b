"""`capt predict captcha`: lines `a120000 fail` for a range of ids; a killed run goes on where it stopped.

ids → images by number, all there before the first is read → words → lines, in order → the file, whole or not at all
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from features.extractors.extraction import EncodedImage
from features.io.locations import local_path
from features.synthetic.captchas.image_names import parse_image_number
from schemas.errors import CaptError, RecordError, UsageError
from schemas.options.inference import PredictCaptcha
from schemas.table_config import compute_digest
from schemas.terminal.progress import progress_bar
from trainer.data.image_inputs import ImageInput, find_images
from trainer.decoding.ctc_decoder import Prediction
from trainer.inference.partial_output import PartialOutput
from trainer.models.charset import CHARACTERS
from trainer.runs.recognizer_run import RecognizerRun
from trainer.runs.run import DECODE_BATCH, open_run

_NAMED = 5


def predict_captcha(options: PredictCaptcha) -> dict[str, Any]:
    """Read the words of a range of ids into a file of lines `a120000 fail`, one an id, in order.

    An answer file with a line too few is of no use, and one with a word that nobody read is worse unless it was asked
    for. So where an image is missing or cannot be read, the command reads all others, names it and fails, and there is
    no file; run again it reads only what is lacking. `--fallback-label` is the label of such images instead.
    Where a decoder reads no letter at all, the line has the likeliest word of the train split.

    Args:
        options: The run, the directories and archives that contain `a0.png`, `a1.png`, …, the range of their numbers,
            and the file.

    Returns:
        dict: `output`, `ids`, `labels_written` (lines that were recognized), `failed` (lines with the fallback label),
        and `resumed` (lines that an interrupted run had written).

    Raises:
        UsageError: the range or the fallback label is invalid.
        StoreError: the run cannot be used.
        CaptError: an image is missing or cannot be read, or is there twice.
    """
    on_error, decode = options.fallback_label, options.decoding_strategy
    wanted, path = _range(options.ids), local_path(options.output, "--output")
    if on_error is not None and not (on_error and set(on_error) <= set(CHARACTERS)):
        raise UsageError("it is no word of the letters a to z", location=f"--fallback-label {on_error}")
    opened = open_run(options.run, RecognizerRun)
    pictures = _pictures(options.images, wanted)
    missing = [number for number in wanted if number not in pictures]
    if missing and on_error is None:
        raise _incomplete("are not there", missing, "check --images and --ids")
    owner = compute_digest([opened.identity, decode, wanted.start, wanted.stop])
    lines = PartialOutput(path, owner, [pictures.get(number) for number in wanted])
    faults = _read_all(opened, decode, lines, wanted, pictures)
    if faults and on_error is None:
        raise _incomplete("cannot be read", list(faults), f"the first: {next(iter(faults.values()))}")
    failed = lines.missing
    lines.finish(lambda place: f"a{wanted[place]} {on_error}")
    return {
        "output": options.output,
        "ids": len(wanted),
        "labels_written": len(wanted) - len(failed),
        "failed": len(failed),
        "resumed": lines.resumed,
    }


def _range(ids: str) -> range:
    first, _, last = ids.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UsageError(
            f"{ids!r} is no range", location="--ids", hint="say FROM:TO, TO not taken, such as 120000:140000"
        )
    return range(int(first), int(last))


def _pictures(images: Sequence[str], wanted: range) -> dict[int, ImageInput]:
    """The pictures of the range by number."""
    found: dict[int, ImageInput] = {}
    for picture in (picture for name in images for picture in find_images(name)):
        number = parse_image_number(picture.name)
        if number is None or number not in wanted:
            continue
        if number in found:
            raise CaptError(f"a{number} is there twice", location=f"{found[number].name}, {picture.name}")
        found[number] = picture
    return found


def _read_all(
    run: RecognizerRun, decode: str, lines: PartialOutput, wanted: range, pictures: dict[int, ImageInput]
) -> dict[int, RecordError]:
    """Add the lines that are missing, as far as their images can be read; the errors of the others, by number."""
    faults: dict[int, RecordError] = {}
    todo = [place for place in lines.missing if wanted[place] in pictures]
    answers = zip(todo, run.recognize_encoded(_sources(pictures, wanted, todo), decode), strict=True)
    with progress_bar("reading", len(todo), "images") as show:
        done = 0
        for batch in _batches(answers):
            faults |= {wanted[place]: answer for place, answer in batch if isinstance(answer, RecordError)}
            read = [(place, answer) for place, answer in batch if not isinstance(answer, RecordError)]
            nothing = [place for place, answer in read if not answer.text]
            words = {place: answer.text for place, answer in read} | _likeliest(run, pictures, wanted, nothing)
            lines.add((place, f"a{wanted[place]} {word}") for place, word in words.items())
            done += len(batch)
            show(done, "")
    return faults


def _likeliest(
    run: RecognizerRun, pictures: dict[int, ImageInput], wanted: range, places: Sequence[int]
) -> dict[int, str]:
    """The likeliest words of the train split in images in which no letter was read, for a line must have a word."""
    answers = run.recognize_encoded(_sources(pictures, wanted, places), "lexicon")
    return {place: answer.text for place, answer in zip(places, answers, strict=True) if isinstance(answer, Prediction)}


def _sources(pictures: dict[int, ImageInput], wanted: range, places: Sequence[int]) -> Iterator[EncodedImage]:
    return (EncodedImage(b"", pictures[wanted[place]].read) for place in places)


def _batches(answers: Iterator[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    while batch := list(islice(answers, DECODE_BATCH)):
        yield batch


def _incomplete(message: str, numbers: Sequence[int], hint: str) -> CaptError:
    named = ", ".join(f"a{number}" for number in numbers[:_NAMED])
    more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
    return CaptError(
        f"no file is written: {len(numbers):,} images {message}: {named}{more}",
        hint=f"{hint}; or give --fallback-label LABEL for those images",
        summary={"failed": [f"a{number}" for number in numbers]},
    )
