"""Runs `capt predict captcha`: writes lines `a120000 fail` for a range of images; an interrupted run resumes.

image numbers → images, all present before the first is recognized → labels → lines, in order → the finished file
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from features.extractors.extraction import EncodedImage
from features.io.locations import local_path
from features.text.captcha_names import parse_image_number
from features.text.charset import Charset
from schemas.choices import DecodingStrategy
from schemas.errors import CaptError, RecordError, UsageError
from schemas.manifests import LabelFormat
from schemas.options.inference import PredictCaptcha
from schemas.table_config import compute_digest
from schemas.terminal.progress import progress_bar
from trainer.data.captcha_data import parse_id_range
from trainer.data.label_limits import list_characters
from trainer.decoding.label_decoder import Prediction
from trainer.inference.image_inputs import ImageInput, find_images
from trainer.inference.open_images import OpenImage, check_open_dir, refuse_existing, write_open_images
from trainer.inference.open_labels import is_open, warn_if_uncalibrated
from trainer.inference.partial_output import PartialOutput, partial_path
from trainer.runs.recognizer_run import RecognizerRun
from trainer.runs.run import DECODE_BATCH, open_run

_MAX_LISTED = 5
# Begins the line of an open label in the incomplete output: its score, a space, and the predicted label.
_OPEN = "?"


def predict_captcha(options: PredictCaptcha) -> dict[str, Any]:
    """Recognizes a range of images and writes one `ID LABEL` line per image, in order, such as `a120000 fail`.

    If an image is missing, the command lists it and fails before it recognizes others. If an image is unreadable, the
    command recognizes all others, lists the image and fails without the output file. The next run recognizes only the
    missing images. With `--fallback-label`, these images get that label instead. If no character is recognized, the
    most probable training label is written. The lines have the separator and line end of the label file that
    `capt prepare captcha` read.

    With `--min-confidence`, a label with less is left open: the file has no line for its image, so that all its lines
    remain answers, and `capt evaluate --answers` counts the ID as `missing`.

    Returns:
        `output`, `ids`, `labels_written` (number of recognized lines), `failed` (number of lines with the fallback
        label), and `resumed` (number of lines that an interrupted run had written). With
        `min_confidence`, `open` (number of labels that are left open), and `open_dir` if it was written.

    Raises:
        UsageError: The range or the fallback label is invalid, or the open directory exists.
        StoreError: The run is not usable.
        CaptError: An image is missing, unreadable or ambiguous.
    """
    fallback, strategy = options.fallback_label, options.decoding_strategy
    numbers, path = parse_id_range(options.ids), local_path(options.output, "--output")
    min_confidence = options.min_confidence
    open_dir = check_open_dir(options.open_dir, min_confidence, options.images, path)
    # A run that is interrupted before its last step leaves both the directory and incomplete output.
    if not partial_path(path).exists():
        refuse_existing(open_dir)
    run = open_run(options.run, RecognizerRun, options.epoch)
    warn_if_uncalibrated(run, min_confidence)
    if fallback is not None:
        _check_label(fallback, run.metadata.config.characters)
    images = _find_images(options.images, numbers)
    missing = [number for number in numbers if number not in images]
    if missing and fallback is None:
        raise _make_error("are missing", missing, "Check --images and --ids")
    limits = [] if min_confidence is None else [min_confidence]
    owner = compute_digest([run.identity, strategy, numbers.start, numbers.stop, *limits])
    label_format = run.metadata.label_format or LabelFormat()
    lines = PartialOutput(path, owner, [images.get(number) for number in numbers], label_format.line_end)

    def write_line(number: int, one: Prediction) -> str:
        if is_open(one, min_confidence):
            return f"{_OPEN}{one.score!r} {one.text}"
        return f"a{number}{label_format.separator}{one.text}"

    errors = _recognize(run, strategy, lines, numbers, images, write_line)
    if errors and fallback is None:
        raise _make_error("are unreadable", list(errors), f"Fix them (first error: {next(iter(errors.values()))})")
    failed = lines.missing
    left_open = [
        OpenImage(images[numbers[line]], _parse_open(text)) for line, text in lines.read() if text.startswith(_OPEN)
    ]
    copied = write_open_images(open_dir, left_open)
    lines.finish(
        lambda line: f"a{numbers[line]}{label_format.separator}{fallback}", omit=lambda text: text.startswith(_OPEN)
    )
    return {
        "output": options.output,
        "ids": len(numbers),
        "labels_written": len(numbers) - len(failed) - len(left_open),
        "failed": len(failed),
        "resumed": lines.resumed,
        **({} if min_confidence is None else {"open": len(left_open)}),
        **copied,
    }


def _parse_open(text: str) -> Prediction:
    score, _, label = text.removeprefix(_OPEN).partition(" ")
    return Prediction(label, float(score))


def _check_label(label: str, charset: Charset) -> None:
    if not label:
        raise UsageError("a label has at least one character", location="--fallback-label")
    if unknown := charset.find_unknown([label]):
        message = f"the recognizer's labels never have {list_characters(unknown)}"
        raise UsageError(message, location=f"--fallback-label {label}", hint="Use characters of its train labels.")


def _find_images(locations: Sequence[str], numbers: range) -> dict[int, ImageInput]:
    images: dict[int, ImageInput] = {}
    for image in chain.from_iterable(map(find_images, locations)):
        number = parse_image_number(image.name)
        if number in images:
            raise CaptError(f"a{number} exists twice", location=f"{images[number].name}, {image.name}")
        if number is not None and number in numbers:
            images[number] = image
    return images


def _recognize(
    run: RecognizerRun,
    strategy: DecodingStrategy,
    lines: PartialOutput,
    numbers: range,
    images: dict[int, ImageInput],
    write_line: Callable[[int, Prediction], str],
) -> dict[int, RecordError]:
    """Adds the missing lines, and returns the errors of unreadable images by number.

    `write_line` returns the line of an image number and its prediction.
    """
    errors: dict[int, RecordError] = {}
    pending = [line for line in lines.missing if numbers[line] in images]

    def recognize(some: Sequence[int], strategy: DecodingStrategy) -> Iterator[tuple[int, Prediction | RecordError]]:
        encoded = (EncodedImage(b"", images[numbers[line]].read) for line in some)
        return zip(some, run.recognize_encoded(encoded, strategy), strict=True)

    results = recognize(pending, strategy)
    with progress_bar("recognizing", len(pending), "images") as show:
        done = 0
        while batch := list(islice(results, DECODE_BATCH)):
            errors |= {numbers[line]: result for line, result in batch if isinstance(result, RecordError)}
            labels = {line: result for line, result in batch if isinstance(result, Prediction)}
            empty = [line for line, one in labels.items() if not one.text]
            labels |= {line: one for line, one in recognize(empty, "lexicon") if isinstance(one, Prediction)}
            lines.add((line, write_line(numbers[line], one)) for line, one in labels.items())
            done += len(batch)
            show(done, "")
    return errors


def _make_error(message: str, numbers: Sequence[int], hint: str) -> CaptError:
    listed = ", ".join(f"a{number}" for number in numbers[:_MAX_LISTED])
    more = f" and {len(numbers) - _MAX_LISTED:,} more" if len(numbers) > _MAX_LISTED else ""
    return CaptError(
        f"no file is written, because {len(numbers):,} images {message}: {listed}{more}",
        hint=f"{hint}, or set --fallback-label LABEL for these images.",
        summary={"failed": len(numbers), "failed_ids": [f"a{number}" for number in numbers]},
    )
