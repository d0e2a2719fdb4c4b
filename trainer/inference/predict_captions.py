"""Runs `capt predict captions`: writes one JSON line per image; an interrupted run resumes."""

import json
from itertools import count, islice
from typing import Any

from features.extractors.extraction import EncodedImage
from features.io.locations import local_path
from schemas.errors import NoUsableImageError
from schemas.options.inference import PredictCaptions
from schemas.table_config import compute_digest
from schemas.terminal.progress import progress_bar
from trainer.inference.caption_images import to_json
from trainer.inference.image_inputs import find_images
from trainer.inference.partial_output import PartialOutput
from trainer.runs.captioner_ensemble import open_captioner
from trainer.runs.run import DECODE_BATCH


def predict_captions(options: PredictCaptions) -> dict[str, Any]:
    """Captions images and writes one JSON object per line: `image` with `text` and `score`, or with `error`.

    Returns:
        `output`, `images`, `captions`, `failed`, and `resumed` (number of lines, in whole batches, that an interrupted
        run had written).

    Raises:
        UsageError: An option is invalid.
        StoreError: The run is not usable.
        NoUsableImageError: No image can be captioned. The file states the reasons.
    """
    path = local_path(options.output, "--output")
    run = open_captioner(options.run, options.ensemble, options.epoch)
    config = run.decoding(**options.generation())
    images = [image for name in options.images for image in find_images(name)]
    owner = compute_digest([run.identity, config.model_dump(mode="json")])
    lines = PartialOutput(path, owner, images)
    first = min(lines.missing, default=len(images))
    # The last digits of a score depend on the batch of its image.
    resumed = first - first % DECODE_BATCH
    rest = images[resumed:]
    results = run.caption_encoded((EncodedImage(b"", image.read) for image in rest), config, count(resumed))
    numbered = (
        (number, json.dumps({"image": image.name, **to_json(result)}, ensure_ascii=False))
        for number, (image, result) in enumerate(zip(rest, results, strict=True), resumed)
    )
    with progress_bar("captioning", len(images), "images") as show:
        while batch := list(islice(numbered, DECODE_BATCH)):
            lines.add(batch)
            show(batch[-1][0] + 1, "")
    lines.finish()
    with path.open("rb") as file:
        errors = [error for line in file if (error := json.loads(line).get("error"))]
    summary = {
        "output": options.output,
        "images": len(images),
        "captions": len(images) - len(errors),
        "failed": len(errors),
        "resumed": resumed,
    }
    if len(errors) == len(images):
        raise NoUsableImageError(len(images), errors[0], summary)
    return summary
