"""Reads Karpathy's splits of COCO, Flickr8k and Flickr30k: `dataset_{coco,flickr8k,flickr30k}.json`, plain or zipped.

Format: https://cs.stanford.edu/people/karpathy/deepimagesent/: `images[{filename, split, imgid, sentences[{raw, tokens,
sentid}]}]`, for COCO also `filepath` and `cocoid`. An image's ID is its `cocoid`, as in COCO's own files, or else its
`imgid`; a caption's ID is its `sentid`. `restval` belongs to train.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from features.text.lines import FailedRecord
from features.text.record_fields import (
    read_caption,
    read_identifier,
    read_name,
    read_record,
    read_split_field,
    read_value,
)
from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, ImageEntry
from schemas.errors import RecordError, UsageError

_HINT = "Check that this is one of Karpathy's dataset_*.json."


class KarpathyReader(AnnotationReader):
    """Reads one of Karpathy's files, or several if each is named."""

    dataset_type = "karpathy"
    pattern = re.compile(r"(^|/)dataset_[^/]*\.json$")
    pattern_text = "dataset_*.json"
    example = "dataset_flickr8k.json"

    def choose_documents(self, path: str, found: list[AnnotationFile]) -> list[AnnotationFile]:
        if len(found) > 1:
            names = ", ".join(document.name for document in found)
            hint = "Unpack the archive, and choose one of them."
            raise UsageError(f"the path contains several files: {names}", location=path, hint=hint)
        return found

    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        return document.read_image_list(_read_image, _HINT)

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        for location, image in document.read_list("images", _HINT):
            sentences = read_record(location, partial(_read_sentences, image))
            if isinstance(sentences, FailedRecord):
                yield sentences
                continue
            for number, sentence in enumerate(sentences):
                yield read_record(f"{location}: sentences[{number}]", partial(_read_caption, image, sentence))


def _read_image(image: Any) -> ImageEntry:
    file_name = read_name(image, "filename")
    folder = read_name(image, "filepath") if image.get("filepath") else ""
    split = read_value(image, "split")
    path = f"{folder}/{file_name}" if folder else file_name
    return ImageEntry(_read_image_id(image), path, "train" if split == "restval" else read_split_field(split))


def _read_image_id(image: Any) -> str:
    return read_identifier(image, "cocoid" if "cocoid" in image else "imgid")


def _read_sentences(image: Any) -> list[Any]:
    sentences = read_value(image, "sentences")
    if not isinstance(sentences, list):
        raise RecordError("parse", "not a list", "'sentences' is not a list")
    return sentences


def _read_caption(image: Any, sentence: Any) -> CaptionEntry:
    image_id, caption_id = _read_image_id(image), read_identifier(sentence, "sentid")
    if "raw" in sentence:
        return CaptionEntry(image_id, caption_id, read_caption(sentence["raw"]))
    tokens = read_value(sentence, "tokens")
    if not isinstance(tokens, list):
        raise RecordError("parse", "caption is not text", "'tokens' is not a list")
    return CaptionEntry(image_id, caption_id, " ".join(map(read_caption, tokens)))
