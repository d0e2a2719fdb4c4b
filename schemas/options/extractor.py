"""Declares the options of an extractor."""

from typing import Literal

from schemas.choices import Pooling, Precision, StorageDtype
from schemas.options.base import Count, Options, option

Preprocess = Literal["none", "unit", "tf", "caffe", "torch"]


class ExtractorOptions(Options):
    """Extractor of the features, and its settings; None leaves the choice to the extractor."""

    extractor: str = option(
        "inception_v3",
        "Feature extractor: a keras.applications model in snake case (such as vgg16), alexnet, scene_network (a small "
        "network for synthetic scenes, which ships with capt), custom:FILE.keras, keras_hub:PRESET (an image backbone "
        "of KerasHub: a directory that save_to_preset wrote, or a name), or pixels (the resized image).",
        "EXTRACTOR",
    )
    weights: str | None = option(
        None,
        "Extractor weights: imagenet (downloaded by Keras; not for alexnet), random:SEED, or a weights file. Not valid "
        "with scene_network, custom:, keras_hub: or pixels. [default: imagenet]",
        "WEIGHTS",
    )
    layer: str | None = option(
        None,
        "Name of the layer whose output is stored. [default: the last layer before global pooling; scene_network: "
        "locations; custom: the model output; keras_hub: patches, see also pooled and output]",
        "NAME",
    )
    pooling: Pooling = option(
        "none",
        "Pooling: none stores the spatial feature map as [locations, channels]; avg stores its mean over all "
        "locations as [channels].",
    )
    height: Count | None = option(
        None, "Input height in pixels. [default: the extractor's own input size; pixels: 299]"
    )
    width: Count | None = option(None, "Input width in pixels. [default: the extractor's own input size; pixels: 299]")
    preprocess: Preprocess | None = option(
        None,
        "Input preprocessing of custom: extractors: none (0 to 255), unit (0 to 1), tf (-1 to 1), caffe or torch "
        "(ImageNet statistics).",
    )
    precision: Literal["auto"] | Precision = option(
        "auto",
        "Compute precision of the extractor: float32, bfloat16, int8 (on CPUs, with the extra openvino; features "
        "differ visibly), or auto (the precision of an existing table; otherwise bfloat16 on a GPU, and on a CPU that "
        "supports it; never int8).",
    )
    storage_dtype: StorageDtype | None = option(
        None,
        "Storage dtype: float16, float32, bfloat16 or int8 (one scale per location). Pixels are always uint8. "
        "[default: float16]",
    )
