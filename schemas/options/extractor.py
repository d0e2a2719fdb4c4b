"""Declares the options of an extractor."""

from typing import Annotated, Literal

from schemas.choices import Pooling, Precision, StorageDtype
from schemas.options.base import Count, Option, Options

Preprocess = Literal["none", "unit", "tf", "caffe", "torch"]


class ExtractorOptions(Options):
    """Extractor of the features, and its settings; None leaves the choice to the extractor."""

    extractor: Annotated[
        str,
        Option(
            "Feature extractor: a keras.applications model in snake case (such as vgg16), custom:FILE.keras, "
            "or pixels (the resized image).",
            "EXTRACTOR",
        ),
    ] = "inception_v3"
    weights: Annotated[
        str | None,
        Option(
            "Extractor weights: imagenet (downloaded by Keras), random:SEED, or a weights file. Not valid "
            "with custom: or pixels.",
            "WEIGHTS",
            default="imagenet",
        ),
    ] = None
    layer: Annotated[
        str | None,
        Option(
            "Name of the layer whose output is stored.",
            "NAME",
            default="the last layer before global pooling; custom: the model output",
        ),
    ] = None
    pooling: Annotated[
        Pooling,
        Option(
            "Pooling: none stores the spatial feature map as [locations, channels]; avg stores its mean over all "
            "locations as [channels]."
        ),
    ] = "none"
    height: Annotated[
        Count | None, Option("Input height in pixels.", default="the extractor's own input size; pixels: 299")
    ] = None
    width: Annotated[
        Count | None, Option("Input width in pixels.", default="the extractor's own input size; pixels: 299")
    ] = None
    preprocess: Annotated[
        Preprocess | None,
        Option(
            "Input preprocessing of custom: extractors: none (0 to 255), unit (0 to 1), tf (-1 to 1), caffe or "
            "torch (ImageNet statistics)."
        ),
    ] = None
    precision: Annotated[
        Literal["auto"] | Precision,
        Option(
            "Compute precision of the extractor: float32, bfloat16, or auto (the precision of an existing "
            "table; otherwise bfloat16 if the CPU supports it)."
        ),
    ] = "auto"
    storage_dtype: Annotated[
        StorageDtype | None,
        Option(
            "Storage dtype: float16, float32, bfloat16 or int8 (one scale per location). Pixels are always uint8.",
            default="float16",
        ),
    ] = None
