"""Describes AlexNet, the extractor of the m-RNN paper, which `keras.applications` does not contain.

ImageNet Classification with Deep Convolutional Neural Networks (Krizhevsky et al., 2012), as the Caffe model
`bvlc_alexnet`: two groups in the convolutions 2, 4 and 5, and a response normalization before the first two poolings.
The weights come from a user's file, because no library publishes them in a format that is safe to load:

    FILE.npz          arrays conv1/kernel, conv1/bias, …, fc7/kernel, fc7/bias
    FILE.weights.h5   written by `save_weights` of the model that `Application.build` returns

Kernels of convolutions are [height, width, channels per group, filters]. The rows of fc6/kernel are in the order
height, width, channel. Other arrays, such as fc8, are ignored.
"""

import zipfile
import zlib
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.application import Application, BuildOptions, PublishedWeights
from features.extractors.output_layers import FeatureFunction, build_in_thread
from schemas.errors import UsageError

NAME = "alexnet"
_NPZ = ".npz"
# Mean of ImageNet's training images in Caffe, for blue, green and red.
_MEAN = (104.00698793, 116.66876762, 122.67891434)
_UNPUBLISHED = PublishedWeights("", None)


class AlexNet(Application):
    """AlexNet up to its seventh layer, `fc7`, with 4,096 values per image."""

    def find_published_weights(self, options: BuildOptions) -> PublishedWeights:
        hint = "Use --weights FILE.npz (see the how-to on extractors), or --weights random:SEED."
        raise UsageError("there are no published weights of alexnet", location="--weights", hint=hint)

    def build(self, options: BuildOptions, weights: str | None = None) -> Any:
        from features.extractors.alexnet_layers import build_alexnet

        return build_in_thread(lambda: build_alexnet(options.height, options.width, top=options.top))

    def load_preprocessing(self) -> FeatureFunction:
        return lambda pixels: pixels[..., ::-1] - np.array(_MEAN, np.float32)

    def load_file(self, model: Any, path: str) -> None:
        if not path.endswith(_NPZ):
            super().load_file(model, path)
            return
        variables = {"/".join(variable.path.split("/")[-2:]): variable for variable in model.weights}
        arrays = _read_arrays(path, variables)
        for name, variable in variables.items():
            if name not in arrays:
                raise ValueError(f"the file has no array {name}")
            if arrays[name].shape != tuple(variable.shape):
                shapes = f"{list(variable.shape)}, got {list(arrays[name].shape)}"
                raise ValueError(f"{name}: expected the shape {shapes}")
            variable.assign(arrays[name])


def _read_arrays(path: str, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an .npz file that have one of the names. ValueError if the file is corrupt."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names if name in arrays}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, TypeError) as error:
        raise ValueError(f"not a complete .npz file: {error}") from error


ALEXNET = AlexNet(
    name=NAME,
    module="",
    function="",
    side=227,
    min_side=67,
    layer="fc7",
    top_layers=("flatten", "fc6", "fc7"),
    without_top=_UNPUBLISHED,
    with_top=_UNPUBLISHED,
    sides=(),
)
