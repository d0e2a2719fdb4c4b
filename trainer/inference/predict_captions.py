"""`capt predict captions`: captions of a whole folder, a JSON line an image; a killed run goes on where it stopped."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from features.extractors.extraction import EncodedImage
from features.io.locations import local_path
from schemas.errors import NoUsableImageError
from schemas.options.inference import PredictCaptions
from schemas.table_config import compute_digest
from schemas.terminal.progress import progress_bar
from trainer.data.image_inputs import ImageInput, find_images
from trainer.decoding.generation import GenerationConfig
from trainer.inference.caption_images import as_result
from trainer.inference.partial_output import PartialOutput
from trainer.runs.captioner_run import CaptionerRun
from trainer.runs.run import DECODE_BATCH, open_run


def predict_captions(options: PredictCaptions) -> dict[str, Any]:
    """Caption folders and archives into a file.

    Args:
        options: The run, the images as `trainer.data.image_inputs.find_images` takes them, and the file: one JSON
            object per line with `image` and either `text` and `score`, or `error`.

    Returns:
        dict: `output`, `images`, `captions`, `failed`, `resumed` (lines that an interrupted run had written, in whole
        batches).

    Raises:
        UsageError: an option is out of range.
        StoreError: the run cannot be used.
        NoUsableImageError: no image can be captioned; the file says why.
    """
    path = local_path(options.output, "--output")
    opened = open_run(options.run, CaptionerRun)
    chosen = opened.decoding(**options.generation())
    pictures = [picture for name in options.images for picture in find_images(name)]
    owner = compute_digest([opened.identity, chosen.model_dump(mode="json")])
    lines = PartialOutput(path, owner, pictures)
    first = min(lines.missing, default=len(pictures))
    # Scores depend, in their last digits, on the batch that an image comes in.
    resumed = first - first % DECODE_BATCH
    with progress_bar("captioning", len(pictures), "images") as show:
        for batch in _batches(opened, pictures, chosen, resumed):
            lines.add(batch)
            show(batch[-1][0] + 1, "")
    lines.finish()
    with path.open("rb") as made:
        errors = [error for line in made if (error := json.loads(line).get("error"))]
    figures = {
        "output": options.output,
        "images": len(pictures),
        "captions": len(pictures) - len(errors),
        "failed": len(errors),
        "resumed": resumed,
    }
    if len(errors) == len(pictures):
        raise NoUsableImageError(len(pictures), errors[0], figures)
    return figures


def _batches(
    run: CaptionerRun, pictures: Sequence[ImageInput], decoding: GenerationConfig, first: int
) -> Iterator[list[tuple[int, str]]]:
    """The lines from `first` on, with their numbers, a batch of them at a time."""
    made = run.caption_encoded((EncodedImage(b"", picture.read) for picture in pictures[first:]), decoding, first)
    lines = (
        (number, json.dumps({"image": picture.name, **as_result(result)}, ensure_ascii=False))
        for number, (picture, result) in enumerate(zip(pictures[first:], made, strict=True), first)
    )
    while batch := list(islice(lines, DECODE_BATCH)):
        yield batch
