"""Runs `capt recognize`: recognizes labels with every decoding strategy."""

from typing import Any

from features.extractors.extraction import EncodedImage
from features.inputs.image_urls import DownloadLimits
from schemas.choices import DecodingStrategy
from schemas.errors import RecordError
from schemas.options.inference import Recognize
from trainer.inference.image_inputs import check_images, find_images
from trainer.runs.recognizer_run import STRATEGIES, RecognizedImage, RecognizerRun
from trainer.runs.run import open_run


def recognize(options: Recognize) -> dict[str, Any]:
    """Recognizes the text in images.

    Returns:
        `{"results": […]}`, per image: `image`, `text`, `score` (log-probability of the label), `confidence` (its
        probability) and `character_confidence` (one probability per character of the text); the same without `image`
        for `greedy`, `beam` and `lexicon`; or `image` and `error`.

    Raises:
        UsageError: An image does not exist.
        StoreError: The run is not usable.
        NoUsableImageError: No image is readable.
    """
    run = open_run(options.run, RecognizerRun, options.epoch)
    limits = DownloadLimits(allow_private=options.allow_private_addresses)
    images = [image for name in options.images for image in find_images(name, limits)]
    recognized = run.recognize_all_strategies(EncodedImage(b"", image.read) for image in images)
    results = [
        {"image": image.name, **_to_json(result, options.decoding_strategy)}
        for image, result in zip(images, recognized, strict=True)
    ]
    return check_images({"results": results})


def _to_json(result: RecognizedImage | RecordError, strategy: DecodingStrategy) -> dict[str, Any]:
    if isinstance(result, RecordError):
        return {"error": str(result)}
    each: dict[str, Any] = {one: result.by(one).to_dict() for one in STRATEGIES}
    return {**each[strategy], **each}
