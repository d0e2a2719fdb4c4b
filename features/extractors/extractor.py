"""What a command asks of an extractor, and what the extractor settles for the recipe."""

from dataclasses import dataclass
from typing import Protocol

from features.extractors.output_layers import FeatureFunction
from schemas.choices import Precision, StorageDtype
from schemas.errors import UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig


@dataclass(frozen=True)
class ExtractorConfig:
    """What a recipe records of an extractor; the fields are those of `FeatureTableConfig`, a precision of None is
    open.
    """

    extractor: str
    weights: str
    layer: str
    height: int
    width: int
    dtype: StorageDtype
    precision: Precision | None = None
    preprocess: str | None = None


class Extractor(Protocol):
    """An extractor as a command opened it."""

    def choice(self) -> ExtractorConfig:
        """What the recipe records of it."""

    def feature_function(self, table_config: FeatureTableConfig) -> FeatureFunction:
        """The function from uint8 pixels to features that the recipe describes, its weights loaded."""


def resolve_dtype(asked: ExtractorOptions, *, pixels: bool) -> StorageDtype:
    """The storage dtype: uint8 for pixels, and for them alone; float16 where nothing else is asked."""
    dtype = asked.storage_dtype or ("uint8" if pixels else "float16")
    if pixels and dtype != "uint8":
        raise UsageError(f"pixels are kept as uint8, not as {dtype}", location="--storage-dtype", hint="leave it out")
    if not pixels and dtype == "uint8":
        raise UsageError(
            "uint8 keeps pixels, not features",
            location="--storage-dtype",
            hint="use int8, or --extractor pixels",
        )
    return dtype
