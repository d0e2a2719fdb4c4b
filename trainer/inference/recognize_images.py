"""`capt recognize`: the words in files, folders and archives, by every decoder."""

from typing import Any

from features.extractors.extraction import EncodedImage
from features.references.downloads import DownloadLimits
from schemas.errors import RecordError
from schemas.options.inference import Recognize
from schemas.terminal.printable import printable
from trainer.data.image_inputs import check_images, find_images
from trainer.runs.recognizer_run import STRATEGIES, RecognizedImage, RecognizerRun
from trainer.runs.run import open_run


def recognize(options: Recognize) -> dict[str, Any]:
    """Recognizes the text in images.

    Args:
        options: The run, the images as `trainer.data.image_inputs.find_images` takes them, and the decoding strategy of
            `text` and `score`.

    Returns:
        `{"results": […]}`, an image each: `image` and `text`, `score` (natural logarithm of its probability), and
        `greedy`, `beam` and `lexicon` with a text and score each, whatever was asked for; or `image` and `error`.

    Raises:
        UsageError: an image cannot be found.
        StoreError: the run cannot be used.
        NoUsableImageError: no image can be read.
    """
    opened = open_run(options.run, RecognizerRun)
    limits = DownloadLimits(allow_private=options.allow_private_addresses)
    pictures = [picture for name in options.images for picture in find_images(name, limits)]
    answers = opened.recognize_all_strategies(EncodedImage(b"", picture.read) for picture in pictures)
    results = [
        {"image": picture.name, **as_result(answer, options.decoding_strategy)}
        for picture, answer in zip(pictures, answers, strict=True)
    ]
    return check_images({"results": results})


def print_predictions(result: dict[str, Any]) -> None:
    """Print what `recognize` returned, a line an image: its name, a tab, and its word or why it has none."""
    for row in result["results"]:
        print(printable(row["image"]), printable(row["text"] if "text" in row else row["error"]), sep="\t")


def as_result(answer: RecognizedImage | RecordError, decode: str) -> dict[str, Any]:
    """What JSON says of an image: `text` and `score` as asked for and of every decoder, or its `error`."""
    if isinstance(answer, RecordError):
        return {"error": str(answer)}
    each = {how: {"text": answer.by(how).text, "score": answer.by(how).score} for how in STRATEGIES}
    return {**each[decode], **each}
