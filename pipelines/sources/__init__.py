"""Source datasets by the name that `--dataset` gives them."""

from collections.abc import Callable, Sequence

from pipelines.sources.base import CaptionEntry, ImageEntry, Source
from pipelines.sources.coco import Coco
from pipelines.sources.folder import Folder
from schemas.errors import UsageError

SOURCES: dict[str, Callable[[Sequence[str]], Source]] = {"coco": Coco, "folder": Folder}


def open_source(kind: str, annotations: Sequence[str]) -> Source:
    """The source of a kind, over its annotation files; UsageError naming the kinds there are."""
    if kind not in SOURCES:
        raise UsageError(f"unknown dataset kind {kind!r}", where="--dataset", mend=f"use one of {', '.join(SOURCES)}")
    return SOURCES[kind](annotations)


__all__ = ["SOURCES", "CaptionEntry", "ImageEntry", "Source", "open_source"]
