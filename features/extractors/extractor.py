"""Defines the interface of an extractor and the settings that it contributes to a table config."""

from dataclasses import dataclass
from typing import Protocol

from features.extractors.output_layers import FeatureFunction
from schemas.choices import Precision, ResizeMode, StorageDtype
from schemas.errors import CaptError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig


@dataclass(frozen=True)
class ExtractorConfig:
    """Resolved settings of an extractor: fields of `FeatureTableConfig`. None leaves the precision open.

    `fit` is the one without `--resize-mode`.
    """

    extractor: str
    weights: str
    layer: str
    height: int
    width: int
    dtype: StorageDtype
    precision: Precision | None = None
    preprocess: str | None = None
    fit: ResizeMode = "stretch"


class Extractor(Protocol):
    """An extractor with the options of a command."""

    def resolve_config(self) -> ExtractorConfig:
        """Returns the settings for the table config."""

    def build_function(self, table_config: FeatureTableConfig) -> FeatureFunction:
        """Builds the function from pixels to features that a table config describes, with its weights."""


def check_unchanged(expected: str, found: str, location: str) -> None:
    """Raises CaptError if the digest of an extractor's files has changed since the command has read them."""
    if found != expected:
        message = "the files of the extractor have changed since the command began"
        raise CaptError(message, location=location, hint="Run the command again.")


def resolve_dtype(options: ExtractorOptions, *, pixels: bool) -> StorageDtype:
    """Returns the storage dtype: uint8 for pixels and only for them, float16 by default for features."""
    dtype = options.storage_dtype or ("uint8" if pixels else "float16")
    if pixels == (dtype == "uint8"):
        return dtype
    problem, hint = f"pixels are stored as uint8, not as {dtype}", "Omit the option."
    if not pixels:
        problem, hint = "uint8 is only for pixels, not for features", "Use int8, or --extractor pixels."
    raise UsageError(problem, location="--storage-dtype", hint=hint)
