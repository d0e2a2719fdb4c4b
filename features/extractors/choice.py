"""What a command asks of an extractor, and what the extractor settles for the recipe."""

from dataclasses import dataclass
from typing import Literal, Protocol

from features.extractors.layers import FeatureFunction
from schemas.errors import UsageError
from schemas.recipes import FeatureRecipe, Pooling, Precision, StorageDtype


@dataclass(frozen=True)
class Asked:
    """What a command asks; None leaves the choice to the extractor.

    Args:
        extractor: str. A network of `keras.applications` in snake case, `custom:FILE.keras`, or `pixels`.
        weights: str or None. `imagenet`, `random:SEED` or a file.
        layer: str or None. The layer to keep.
        pooling: str. `avg` averages over places; `none` keeps them.
        height, width: int or None. Input size in pixels.
        preprocess: str or None. How a custom network's pixels are scaled.
        dtype: str or None. Storage dtype.
        precision: str. Arithmetic of the network, or `auto`.
    """

    extractor: str = "inception_v3"
    weights: str | None = None
    layer: str | None = None
    pooling: Pooling = "none"
    height: int | None = None
    width: int | None = None
    preprocess: str | None = None
    dtype: StorageDtype | None = None
    precision: Literal["auto"] | Precision = "auto"


@dataclass(frozen=True)
class Choice:
    """What a recipe records of an extractor; the fields are those of `FeatureRecipe`, a precision of None is open."""

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

    def choice(self) -> Choice:
        """What the recipe records of it."""

    def feature_function(self, recipe: FeatureRecipe) -> FeatureFunction:
        """The function from uint8 pixels to features that the recipe describes, its weights loaded."""


def settled_dtype(asked: Asked, *, pixels: bool) -> StorageDtype:
    """The storage dtype: uint8 for pixels, and for them alone; float16 where nothing else is asked."""
    dtype = asked.dtype or ("uint8" if pixels else "float16")
    if pixels and dtype != "uint8":
        raise UsageError(f"pixels are kept as uint8, not as {dtype}", where="--dtype", mend="leave it out")
    if not pixels and dtype == "uint8":
        raise UsageError(
            "uint8 keeps pixels, not features",
            where="--dtype",
            mend="use int8, or --extractor pixels",
        )
    return dtype
