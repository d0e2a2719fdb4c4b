"""Karpathy's splits of COCO, Flickr8k and Flickr30k: `dataset_{coco,flickr8k,flickr30k}.json`, as a file or zipped.

Format: https://cs.stanford.edu/people/karpathy/deepimagesent/: `images[{filename, split, imgid, sentences[{raw, tokens,
sentid}]}]`, COCO's with `filepath` and `cocoid` too. An image's id is its `cocoid`, so that it is the one that COCO's
own files give, else its `imgid`; a caption's is its `sentid`. `restval` belongs to train.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files, require_annotations
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry, build_failed_image, set_document
from pipelines.datasets.record_fields import (
    read_caption,
    read_identifier,
    read_list,
    read_name,
    read_split_field,
    read_value,
)
from pipelines.datasets.record_reader import read_record
from schemas.errors import RecordError, UsageError

_DATASET = re.compile(r"(^|/)dataset_[^/]*\.json$")
_MEND = "is this one of Karpathy's dataset_*.json?"


class KarpathyReader:
    """One of Karpathy's files, or several where each is named."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = require_annotations(annotations, "karpathy", "dataset_flickr8k.json")

    def images(self) -> Iterator[ImageEntry]:
        """The images, in the files' order."""
        for document in self._documents():
            for place, image in _images(document):
                entry = read_record(place, partial(_image, image))
                named = build_failed_image(entry) if isinstance(entry, FailedRecord) else entry
                yield named._replace(document=document.location, place=place)

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions, in the files' order."""
        for document in self._documents():
            yield from set_document(document.location, _captions(document))

    def _documents(self) -> Iterator[AnnotationFile]:
        for path in self._annotations:
            found = list(list_annotation_files([path], _DATASET, "dataset_*.json"))
            if len(found) > 1:
                held = ", ".join(document.name for document in found)
                raise UsageError(
                    f"it holds {held}, and one is read at a time", location=path, hint="unpack the one meant"
                )
            yield found[0]


def _images(document: AnnotationFile) -> Iterator[tuple[str, Any]]:
    return read_list(document.json(), "images", document.location, _MEND)


def _captions(document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
    for place, image in _images(document):
        sentences = read_record(place, partial(_sentences, image))
        if isinstance(sentences, FailedRecord):
            yield sentences
            continue
        for number, sentence in enumerate(sentences):
            yield read_record(f"{place}: sentences[{number}]", partial(_caption, image, sentence))


def _image(image: Any) -> ImageEntry:
    file_name = read_name(image, "filename")
    folder = read_name(image, "filepath") if image.get("filepath") else ""
    split = read_value(image, "split")
    return ImageEntry(
        _id_of(image),
        f"{folder}/{file_name}" if folder else file_name,
        "train" if split == "restval" else read_split_field(split),
    )


def _id_of(image: Any) -> str:
    return read_identifier(image, "cocoid" if "cocoid" in image else "imgid")


def _sentences(image: Any) -> list[Any]:
    sentences = read_value(image, "sentences")
    if not isinstance(sentences, list):
        raise RecordError("parse", "no list", "'sentences' is no list")
    return sentences


def _caption(image: Any, sentence: Any) -> CaptionEntry:
    return CaptionEntry(_id_of(image), read_identifier(sentence, "sentid"), _text(sentence))


def _text(sentence: dict[str, Any]) -> str:
    if "raw" in sentence:
        return read_caption(sentence["raw"])
    tokens = read_value(sentence, "tokens")
    if not isinstance(tokens, list):
        raise RecordError("parse", "caption is no text", "'tokens' is no list")
    return " ".join(map(read_caption, tokens))
