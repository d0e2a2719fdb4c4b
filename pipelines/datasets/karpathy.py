"""Karpathy's splits of COCO, Flickr8k and Flickr30k: `dataset_{coco,flickr8k,flickr30k}.json`, as a file or zipped.

Format: https://cs.stanford.edu/people/karpathy/deepimagesent/: `images[{filename, split, imgid, sentences[{raw, tokens,
sentid}]}]`, COCO's with `filepath` and `cocoid` too. An image's id is its `cocoid`, so that it is the one that COCO's
own files give, else its `imgid`; a caption's is its `sentid`. `restval` belongs to train.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files, required
from pipelines.datasets.base import CaptionEntry, ImageEntry, MalformedRecord, failed_image, in_document
from pipelines.datasets.record_fields import checked_split, identifier, name, read_caption, records, value
from pipelines.datasets.record_reader import read_record
from schemas.errors import RecordError, UsageError

_DATASET = re.compile(r"(^|/)dataset_[^/]*\.json$")
_MEND = "is this one of Karpathy's dataset_*.json?"


class KarpathyReader:
    """One of Karpathy's files, or several where each is named."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = required(annotations, "karpathy", "dataset_flickr8k.json")

    def images(self) -> Iterator[ImageEntry]:
        """The images, in the files' order."""
        for document in self._documents():
            for place, image in _images(document):
                entry = read_record(place, partial(_image, image))
                named = failed_image(entry) if isinstance(entry, MalformedRecord) else entry
                yield named._replace(document=document.location, place=place)

    def captions(self) -> Iterator[CaptionEntry | MalformedRecord]:
        """The captions, in the files' order."""
        for document in self._documents():
            yield from in_document(document.location, _captions(document))

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
    return records(document.json(), "images", document.location, _MEND)


def _captions(document: AnnotationFile) -> Iterator[CaptionEntry | MalformedRecord]:
    for place, image in _images(document):
        sentences = read_record(place, partial(_sentences, image))
        if isinstance(sentences, MalformedRecord):
            yield sentences
            continue
        for number, sentence in enumerate(sentences):
            yield read_record(f"{place}: sentences[{number}]", partial(_caption, image, sentence))


def _image(image: Any) -> ImageEntry:
    file_name = name(image, "filename")
    folder = name(image, "filepath") if image.get("filepath") else ""
    split = value(image, "split")
    return ImageEntry(
        _id_of(image),
        f"{folder}/{file_name}" if folder else file_name,
        "train" if split == "restval" else checked_split(split),
    )


def _id_of(image: Any) -> str:
    return identifier(image, "cocoid" if "cocoid" in image else "imgid")


def _sentences(image: Any) -> list[Any]:
    sentences = value(image, "sentences")
    if not isinstance(sentences, list):
        raise RecordError("parse", "no list", "'sentences' is no list")
    return sentences


def _caption(image: Any, sentence: Any) -> CaptionEntry:
    return CaptionEntry(_id_of(image), identifier(sentence, "sentid"), _text(sentence))


def _text(sentence: dict[str, Any]) -> str:
    if "raw" in sentence:
        return read_caption(sentence["raw"])
    tokens = value(sentence, "tokens")
    if not isinstance(tokens, list):
        raise RecordError("parse", "caption is no text", "'tokens' is no list")
    return " ".join(map(read_caption, tokens))
