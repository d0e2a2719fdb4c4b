"""Source datasets by the name that `--dataset-type` gives them."""

from collections.abc import Callable, Sequence

from pipelines.sources.base import CaptionEntry, ImageEntry, Malformed, Source, WalkedSource
from pipelines.sources.coco import Coco
from pipelines.sources.conceptual import Conceptual
from pipelines.sources.csv_file import CsvFile
from pipelines.sources.flickr8k import Flickr8k
from pipelines.sources.flickr30k import Flickr30k
from pipelines.sources.folder import Folder
from pipelines.sources.iapr import Iapr
from pipelines.sources.jsonl import JsonLines
from pipelines.sources.karpathy import Karpathy
from schemas.errors import UsageError

SOURCES: dict[str, Callable[[Sequence[str]], Source]] = {
    "coco": Coco,
    "karpathy": Karpathy,
    "flickr8k": Flickr8k,
    "flickr30k": Flickr30k,
    "conceptual": Conceptual,
    "iapr": Iapr,
    "csv": CsvFile,
    "jsonl": JsonLines,
    "folder": Folder,
}


def open_source(kind: str, annotations: Sequence[str]) -> Source:
    """The source of a kind, over its annotation files; UsageError naming the kinds there are."""
    if kind not in SOURCES:
        raise UsageError(
            f"unknown dataset kind {kind!r}", where="--dataset-type", mend=f"use one of {', '.join(SOURCES)}"
        )
    return SOURCES[kind](annotations)


__all__ = ["SOURCES", "CaptionEntry", "ImageEntry", "Malformed", "Source", "WalkedSource", "open_source"]
