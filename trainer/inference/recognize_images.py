"""Runs `capt recognize`: recognizes labels with every decoding strategy."""

import sys
from typing import Any

from features.extractors.extraction import EncodedImage
from features.inputs.image_urls import DownloadLimits
from schemas.choices import DecodingStrategy
from schemas.errors import CaptError, RecordError
from schemas.options.inference import Recognize
from schemas.terminal.printable import printable
from trainer.inference.image_inputs import check_images, find_images, print_results
from trainer.inference.open_images import OpenImage, check_open_dir, refuse_existing, write_open_images
from trainer.inference.open_labels import is_open, warn_if_uncalibrated
from trainer.runs.recognizer_run import STRATEGIES, RecognizedImage, RecognizerRun
from trainer.runs.run import open_run


def recognize(options: Recognize) -> dict[str, Any]:
    """Recognizes the text in images.

    Returns:
        `{"results": […]}`, per image: `image`, `text`, `score` (log-probability of the label), `confidence` (its
        probability) and `character_confidence` (one probability per character of the text); the same without `image`
        for `greedy`, `beam` and `lexicon`; or `image` and `error`. With `min_confidence`, also `open`: the number of
        labels that are left open. Such a row has the `text` "", and `prediction`, the label to which its confidence
        belongs, which is empty if no character is recognized.
        `open_dir` is the directory with the open images, if it was written.

    Raises:
        UsageError: An image does not exist.
        StoreError: The run is not usable.
        NoUsableImageError: No image is readable.
        CaptError: An open image cannot be copied; `summary` has the results.
    """
    open_dir = check_open_dir(options.open_dir, options.min_confidence, options.images)
    refuse_existing(open_dir)
    run = open_run(options.run, RecognizerRun, options.epoch)
    warn_if_uncalibrated(run, options.min_confidence)
    limits = DownloadLimits(allow_private=options.allow_private_addresses)
    images = [image for name in options.images for image in find_images(name, limits)]
    recognized = run.recognize_all_strategies(EncodedImage(b"", image.read) for image in images)
    rows, left_open = [], []
    for image, result in zip(images, recognized, strict=True):
        rows.append({"image": image.name, **to_json(result, options.decoding_strategy, options.min_confidence)})
        if isinstance(result, RecognizedImage):
            prediction = result.by(options.decoding_strategy)
            if is_open(prediction, options.min_confidence):
                left_open.append(OpenImage(image, prediction))
    summary = {"open": len(left_open)} if options.min_confidence is not None else {}
    checked = check_images({"results": rows, **summary})
    try:
        return checked | write_open_images(open_dir, left_open)
    except CaptError as error:
        # The labels are recognized nevertheless.
        error.summary = checked
        raise


def to_json(
    result: RecognizedImage | RecordError, strategy: DecodingStrategy, min_confidence: float | None
) -> dict[str, Any]:
    """Returns the row of an image without its name, as `recognize` describes it."""
    if isinstance(result, RecordError):
        return {"error": str(result)}
    each: dict[str, Any] = {one: result.by(one).to_dict() for one in STRATEGIES}
    prediction = result.by(strategy)
    left_open = {"text": "", "prediction": prediction.text} if is_open(prediction, min_confidence) else {}
    return {**each[strategy], **each, **left_open}


def print_recognized(result: dict[str, Any]) -> None:
    """Prints the result of `recognize`, one line per image, and on standard error how many labels are left open."""
    print_results(result)
    if "open" in result:
        copied = f" Their images are in {result['open_dir']}." if "open_dir" in result else ""
        why = "too low confidence, or no character"
        text = f"{result['open']:,} of {len(result['results']):,} labels are left open: {why}.{copied}"
        print(printable(text), file=sys.stderr)
