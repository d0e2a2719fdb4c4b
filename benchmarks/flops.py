"""Operations of a Keras network: two for every product of a weight and a value, as in a matrix product."""

import math
from typing import Any


def flops_of(network: Any) -> int:
    """Operations an image of a built `keras.Model` with one size of input: convolutions, dense layers, no others."""
    return sum(2 * _products(layer) for layer in network.layers)


def _products(layer: Any) -> int:
    if hasattr(layer, "layers"):
        return sum(map(_products, layer.layers))
    kernels = [weight for weight in layer.weights if weight.path.endswith("kernel")]
    if not kernels:
        return 0
    positions = math.prod(layer.output.shape[1:-1])
    return positions * sum(math.prod(kernel.shape) for kernel in kernels)
