"""Karpathy's splits of COCO, Flickr8k and Flickr30k: `dataset_{coco,flickr8k,flickr30k}.json`, as a file or zipped.

Format: https://cs.stanford.edu/people/karpathy/deepimagesent/: `images[{filename, split, imgid, sentences[{raw, tokens,
sentid}]}]`, COCO's with `filepath` and `cocoid` too. An image's id is its `cocoid`, so that it is the one that COCO's
own files give, else its `imgid`; a caption's is its `sentid`. `restval` belongs to train.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.sources.base import CaptionEntry, ImageEntry
from pipelines.sources.documents import documents, required
from pipelines.sources.fields import records, split_of, text_of, value
from schemas.errors import CaptError, UsageError

_DATASET = re.compile(r"(^|/)dataset_[^/]*\.json$")
_MEND = "is this one of Karpathy's dataset_*.json?"


class Karpathy:
    """One of Karpathy's files, or several where each is named."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = required(annotations, "karpathy", "dataset_flickr8k.json")

    def images(self) -> Iterator[ImageEntry]:
        """The images, in the files' order."""
        for place, image in self._images():
            folder = image.get("filepath")
            name = text_of(value(image, "filename", place, _MEND))
            yield ImageEntry(
                _id_of(image, place), f"{text_of(folder)}/{name}" if folder else name, _split(image, place)
            )

    def captions(self) -> Iterator[CaptionEntry]:
        """The captions, in the files' order."""
        for place, image in self._images():
            image_id = _id_of(image, place)
            for at, sentence in records(image, "sentences", place, _MEND):
                caption_id = text_of(value(sentence, "sentid", at, _MEND))
                yield CaptionEntry(image_id, caption_id, _text(sentence, at))

    def _images(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in self._annotations:
            found = list(documents([name], _DATASET, "dataset_*.json"))
            if len(found) > 1:
                held = ", ".join(document.name for document in found)
                raise UsageError(f"it holds {held}, and one is read at a time", where=name, mend="unpack the one meant")
            for place, image in records(found[0].json(), "images", found[0].where, _MEND):
                if not isinstance(image, dict):
                    raise CaptError("it is no object", where=place, mend=_MEND)
                yield place, image


def _id_of(image: dict[str, Any], place: str) -> str:
    return text_of(image["cocoid"] if "cocoid" in image else value(image, "imgid", place, _MEND))


def _split(image: dict[str, Any], place: str) -> str | None:
    name = text_of(value(image, "split", place, _MEND))
    try:
        return "train" if name == "restval" else split_of(name)
    except ValueError as error:
        raise CaptError(f"unknown split: {error}", where=place, mend=_MEND) from None


def _text(sentence: dict[str, Any], place: str) -> str:
    if isinstance(sentence.get("raw"), str):
        return str(sentence["raw"])
    tokens = value(sentence, "tokens", place, _MEND)
    if not isinstance(tokens, list):
        raise CaptError("'tokens' is no list", where=place, mend=_MEND)
    return " ".join(map(str, tokens))
